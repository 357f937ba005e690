import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";
import { hubChunk } from "./dev/hub-chunk";

/** Set for work without a relay. */
const isFake = process.env["MILLSTREAM_FAKE"] === "1";

/** The relay that `npm run dev` talks to. */
const relay = process.env["MILLSTREAM_RELAY"] ?? "http://127.0.0.1:7171";

const proxy: Record<string, string> = isFake ? {} : { "/millstream.v1.LogService": relay, "/api": relay };

export default defineConfig({
  plugins: [
    svelte(),
    hubChunk(),
    // Only on request: it needs the generated code, which does not exist before the first build.
    isFake && import("./dev/fake-relay").then((dev) => dev.fakeRelay()),
  ],
  build: {
    // The first browsers with light-dark(); below them the bundler would rewrite every colour.
    target: ["chrome123", "firefox120", "safari17.5"],
    sourcemap: false,
    // The relay's policy has no `data:` but for pictures.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy },
  preview: { proxy },
  // A test waits for conditions; on a busy machine they take their time.
  test: { include: ["src/**/*.test.ts"], testTimeout: 60_000 },
});

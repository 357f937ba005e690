/**
 * The worker as a chunk of the page's own build, so that the two share what both need instead of loading it twice.
 * `import hubUrl from "virtual:hub-url"` is the worker's address.
 */
import type { Plugin } from "vite";

const ID = "virtual:hub-url";

export function hubChunk(): Plugin {
  let isBuild = false;
  return {
    name: "hub-chunk",
    configResolved(config) {
      isBuild = config.command === "build";
    },
    resolveId: (id) => (id === ID ? `\0${ID}` : undefined),
    load(id) {
      if (id !== `\0${ID}`) return undefined;
      if (!isBuild) return `export default "/src/hub.worker.ts";`;
      const chunk = this.emitFile({ type: "chunk", id: "src/hub.worker.ts", name: "hub.worker" });
      return `export default import.meta.ROLLUP_FILE_URL_${chunk};`;
    },
  };
}

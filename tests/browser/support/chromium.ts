// Finds the system's Chromium; nothing is ever downloaded.
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];

export function chromiumPath(): string {
  const named = process.env.MILLSTREAM_CHROMIUM;
  if (named !== undefined && named !== "") {
    return named;
  }
  for (const name of NAMES) {
    for (const dir of (process.env.PATH ?? "").split(delimiter)) {
      const file = join(dir, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error(
    `The browser tests need one of ${NAMES.join(", ")} on the PATH (on Debian or Ubuntu: sudo apt-get install chromium).`,
  );
}

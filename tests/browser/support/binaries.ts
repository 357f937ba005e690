// The binaries under test and the repository's files.
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");

export function binary(name: string): string {
  const target = process.env.MILLSTREAM_TARGET_DIR ?? join(repository, "target");
  const file = join(target, "debug", name);
  if (!existsSync(file)) {
    throw new Error(`${file} is missing; \`cargo xtask test\` builds it before it runs these tests.`);
  }
  return file;
}

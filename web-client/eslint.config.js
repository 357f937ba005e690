import js from "@eslint/js";
import svelte from "eslint-plugin-svelte";
import globals from "globals";
import ts from "typescript-eslint";
import svelteConfig from "./svelte.config.js";

export default ts.config(
  { ignores: ["dist", "src/gen", "test-results"] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...svelte.configs.recommended,
  { languageOptions: { globals: { ...globals.browser, ...globals.node } } },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: [".svelte"], svelteConfig } },
  },
  {
    rules: {
      // Log text never becomes markup.
      "svelte/no-at-html-tags": "error",
      // Control characters are what the ANSI parser is about.
      "no-control-regex": "off",
      // The project sets an index type where a value may be missing; `!` would hide it.
      "@typescript-eslint/no-non-null-assertion": "error",
    },
  },
);

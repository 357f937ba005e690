import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseLine } from "../ansi/parse";
import { linksIn } from "./find";
import { piecesOf } from "./pieces";
import { placeLinks } from "./template";

const web = placeLinks(["https://git.example.com/{label.repo}/blob/main/{path}#L{line}", "vscode://file{cwd}/{path}:{line}:{column}"], { labels: { repo: "acme/mill" }, cwd: undefined });
const found = (text: string, place = web): string[] => linksIn(text, place).map(({ from, to, href }) => `${text.slice(from, to)} → ${href}`);

describe("addresses", () => {
  test.each([
    ["see https://example.com/a?b=c&d=1.", ["https://example.com/a?b=c&d=1 → https://example.com/a?b=c&d=1"]],
    ["(https://example.com/a_(b))", ["https://example.com/a_(b) → https://example.com/a_(b)"]],
    ["<https://example.com>, http://localhost:7171/x!", ["https://example.com → https://example.com/", "http://localhost:7171/x → http://localhost:7171/x"]],
    ["javascript:alert(1) data:text/html,x file:///etc/passwd ftp://x", []],
    ["https:// and http://", []],
  ])("%j", (text, links) => {
    expect(found(text)).toEqual(links);
  });
});

describe("places in sources", () => {
  test.each([
    ["  --> src/main.rs:12:5", ["src/main.rs:12:5 → https://git.example.com/acme/mill/blob/main/src/main.rs#L12"]],
    ["./tests/grind.rs:88: assertion failed", ["./tests/grind.rs:88 → https://git.example.com/acme/mill/blob/main/tests/grind.rs#L88"]],
    ["at 10:15:32 ratio 3.14:1 host.example:8080 v1.2.3:4", []],
    ["a.c:0:1", []],
    ["https://example.com/a.rs:3", ["https://example.com/a.rs:3 → https://example.com/a.rs:3"]],
  ])("%j", (text, links) => {
    expect(found(text)).toEqual(links);
  });

  test("lead nowhere without a template, or where none can be filled", () => {
    expect(found("src/main.rs:12:5", null)).toEqual([]);
    expect(found("src/main.rs:12:5", placeLinks([], { labels: {}, cwd: undefined }))).toEqual([]);
    expect(found("src/main.rs:12:5", placeLinks(["https://x/{label.commit}/{path}"], { labels: {}, cwd: undefined }))).toEqual([]);
  });

  test("fall back to the next template", () => {
    const place = placeLinks(["https://x/{label.commit}/{path}", "vscode://file{cwd}/{path}:{line}:{column}"], { labels: {}, cwd: "/home/ci/mill" });
    expect(found("src/main.rs:12", place)).toEqual(["src/main.rs:12 → vscode://file/home/ci/mill/src/main.rs:12:1"]);
  });

  test("never become another kind of address, whatever labels and text say", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), fc.constantFrom("{label.x}", "{label.x}{path}", "https://h/{label.x}/{path}", "javascript:{path}", "{cwd}:{path}"), (label, text, template) => {
        const place = placeLinks([template], { labels: { x: label }, cwd: "javascript" });
        for (const { href } of linksIn(`${text} a/b.rs:1:2 ${text}`, place)) expect(href).toMatch(/^(?:https?|vscode|vscode-insiders|vscodium|cursor|zed|idea|jetbrains|subl|txmt|mvim):/);
      }),
    );
  });

  test("take time in proportion to the text", () => {
    for (const text of ["a/".repeat(100_000), "a.".repeat(100_000), `${"x".repeat(200_000)}:1`, "http://".repeat(50_000), "(".repeat(100_000)]) linksIn(text, web);
  });
});

describe("pieces", () => {
  test("cut spans where links begin and end, and keep the text as it is", () => {
    const line = parseLine("a \x1b[31mhttps://exa\x1b[32mmple.com/x\x1b[0m b \x1b]8;;https://o.example\x07own https://t.example\x1b]8;;\x07.");
    expect(piecesOf(line, null).map(({ text, href }) => [text, href])).toEqual([
      ["a ", null],
      ["https://exa", "https://example.com/x"],
      ["mple.com/x", "https://example.com/x"],
      [" b ", null],
      ["own ", "https://o.example/"],
      ["https://t.example", "https://o.example/"],
      [".", null],
    ]);
    fc.assert(
      fc.property(fc.array(fc.constantFrom("https://a.b/c", " ", "\x1b[1m", "x/y.rs:1:2", "\x1b[0m", "(", "z"), { maxLength: 20 }), (parts) => {
        const parsed = parseLine(parts.join(""));
        expect(piecesOf(parsed, web).map((piece) => piece.text).join("")).toBe(parsed.text);
      }),
    );
  });
});

/** Text attributes, as SGR sequences ("Select Graphic Rendition", ESC [ … m) set them. */

/** 0 to 15: the theme's palette. A string: `#rrggbb`. */
export type Colour = number | string;

export interface Style {
  readonly foreground: Colour | null;
  readonly background: Colour | null;
  readonly bold: boolean;
  readonly dim: boolean;
  readonly italic: boolean;
  readonly underline: boolean;
  readonly strike: boolean;
  readonly inverse: boolean;
  /** Where the text leads (OSC 8); only ever a safe address. */
  readonly link: string | null;
}

export const PLAIN: Style = {
  foreground: null,
  background: null,
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  strike: false,
  inverse: false,
  link: null,
};

export function sameStyle(a: Style, b: Style): boolean {
  return (
    a === b ||
    (a.foreground === b.foreground &&
      a.background === b.background &&
      a.bold === b.bold &&
      a.dim === b.dim &&
      a.italic === b.italic &&
      a.underline === b.underline &&
      a.strike === b.strike &&
      a.inverse === b.inverse &&
      a.link === b.link)
  );
}

/** The style after one SGR sequence with these parameters ("1;38;5;208"). What is not known changes nothing. */
export function applySgr(style: Style, parameters: string): Style {
  let next: Style = style;
  const groups = parameters.split(";");
  for (let at = 0; at < groups.length; at += 1) {
    const group = groups[at] ?? "";
    const parts = group.split(":").map(toNumber);
    const code = parts[0] ?? 0;
    if (code === 38 || code === 48 || code === 58) {
      let colour: Colour | null;
      if (parts.length > 1) {
        // 38:5:n and 38:2:r:g:b, or with a colour space before the components: 38:2::r:g:b
        colour = parts[1] === 5 ? indexed(parts[2] ?? 0) : rgb(parts.slice(parts.length > 5 ? 3 : 2));
      } else {
        const kind = toNumber(groups[at + 1] ?? "");
        const rest = groups.slice(at + 2, at + 5).map(toNumber);
        colour = kind === 5 ? indexed(rest[0] ?? -1) : kind === 2 ? rgb(rest) : null;
        at += kind === 5 ? 2 : kind === 2 ? 4 : 1;
      }
      if (colour !== null && code === 38) next = { ...next, foreground: colour };
      if (colour !== null && code === 48) next = { ...next, background: colour };
      continue;
    }
    next = applyCode(next, code, parts[1]);
  }
  return next;
}

function applyCode(style: Style, code: number, detail: number | undefined): Style {
  if (code >= 30 && code <= 37) return { ...style, foreground: code - 30 };
  if (code >= 40 && code <= 47) return { ...style, background: code - 40 };
  if (code >= 90 && code <= 97) return { ...style, foreground: code - 90 + 8 };
  if (code >= 100 && code <= 107) return { ...style, background: code - 100 + 8 };
  switch (code) {
    case 0:
      return style.link === null ? PLAIN : { ...PLAIN, link: style.link };
    case 1:
      return { ...style, bold: true };
    case 2:
      return { ...style, dim: true };
    case 3:
      return { ...style, italic: true };
    case 4:
      return { ...style, underline: detail !== 0 };
    case 7:
      return { ...style, inverse: true };
    case 9:
      return { ...style, strike: true };
    case 21:
      return { ...style, underline: true };
    case 22:
      return { ...style, bold: false, dim: false };
    case 23:
      return { ...style, italic: false };
    case 24:
      return { ...style, underline: false };
    case 27:
      return { ...style, inverse: false };
    case 29:
      return { ...style, strike: false };
    case 39:
      return { ...style, foreground: null };
    case 49:
      return { ...style, background: null };
    default:
      return style;
  }
}

function toNumber(text: string): number {
  const value = Number.parseInt(text, 10);
  return Number.isNaN(value) ? 0 : value;
}

/** A colour of the 256-colour table: 16 of the theme, a 6×6×6 cube, 24 greys. */
function indexed(index: number): Colour | null {
  if (index < 0 || index > 255) return null;
  if (index < 16) return index;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return rgb([grey, grey, grey]);
  }
  const cube = index - 16;
  return rgb([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((step) => (step === 0 ? 0 : 55 + step * 40)));
}

function rgb(components: number[]): Colour {
  const hex = [0, 1, 2].map((at) => Math.min(255, Math.max(0, components[at] ?? 0)).toString(16).padStart(2, "0"));
  return `#${hex.join("")}`;
}

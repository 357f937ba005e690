/** How a style is painted: classes of log.css, and custom properties for colours outside the palette. */
import { PLAIN, type Style } from "./style";

export interface Paint {
  readonly classes: string;
  /** `#rrggbb`, or undefined for the palette. */
  readonly foreground: string | undefined;
  readonly background: string | undefined;
}

const UNPAINTED: Paint = { classes: "", foreground: undefined, background: undefined };

export function paintOf(style: Style): Paint {
  if (style === PLAIN) return UNPAINTED;
  let { foreground, background } = style;
  const classes: string[] = [];
  if (style.inverse) {
    [foreground, background] = [background, foreground];
    if (background === null) classes.push("inverse-background");
    if (foreground === null) classes.push("inverse-foreground");
  }
  if (typeof foreground === "number") classes.push(`foreground-${foreground}`);
  else if (foreground !== null) classes.push(background === null ? "foreground-rgb" : "foreground-exact");
  if (typeof background === "number") classes.push(`background-${background}`);
  else if (background !== null) classes.push("background-rgb");
  for (const name of ["bold", "dim", "italic", "underline", "strike"] as const) {
    if (style[name]) classes.push(name);
  }
  return {
    classes: classes.join(" "),
    foreground: typeof foreground === "string" ? foreground : undefined,
    background: typeof background === "string" ? background : undefined,
  };
}

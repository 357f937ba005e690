/** Where two lines differ: what stands between what they begin and end with alike. */

export function differingPart(text: string, other: string): { readonly from: number; readonly to: number } {
  const limit = Math.min(text.length, other.length);
  let from = 0;
  while (from < limit && text[from] === other[from]) from += 1;
  let end = 0;
  while (end < limit - from && text[text.length - 1 - end] === other[other.length - 1 - end]) end += 1;
  return { from, to: text.length - end };
}

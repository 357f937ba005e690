/**
 * Where rows stand, in pixels. Only the window's rows have a place in the scrolling element, so that its
 * height stays small whatever the stream's length; the scroll track speaks of the whole stream.
 */

/** Height of a row, pixels; the style sheet says the same. */
export const ROW_PX = 20;

/** Room above the first and below the last row, pixels. */
export const EDGE_PX = 8;

/** Rows painted beyond the view on either side. */
const OVERSCAN_ROWS = 12;

/** The rows to paint: [from, to). */
export interface Slice {
  readonly from: number;
  readonly to: number;
}

export function sliceAt(scrollTopPx: number, viewPx: number, rowCount: number): Slice {
  const first = Math.floor((scrollTopPx - EDGE_PX) / ROW_PX);
  const from = Math.max(0, Math.min(rowCount, first - OVERSCAN_ROWS));
  const to = Math.max(from, Math.min(rowCount, first + Math.ceil(viewPx / ROW_PX) + OVERSCAN_ROWS));
  return { from, to };
}

export function contentPx(rowCount: number): number {
  return rowCount * ROW_PX + 2 * EDGE_PX;
}

export function maxScrollPx(rowCount: number, viewPx: number): number {
  return Math.max(0, contentPx(rowCount) - viewPx);
}

export function rowTopPx(index: number): number {
  return EDGE_PX + index * ROW_PX;
}

/** Index of the first row that is in view. */
export function topRow(scrollTopPx: number, rowCount: number): number {
  return Math.max(0, Math.min(rowCount - 1, Math.floor((scrollTopPx - EDGE_PX) / ROW_PX)));
}

/** The thumb of the scroll track, in pixels from its top. */
export interface Thumb {
  readonly topPx: number;
  readonly heightPx: number;
}

const MIN_THUMB_PX = 28;

/** `firstLine` of `totalLines` stands at the upper edge of a view of `viewLines`. */
export function thumbOf(firstLine: number, viewLines: number, totalLines: number, trackPx: number): Thumb {
  if (totalLines <= viewLines || trackPx <= 0) return { topPx: 0, heightPx: Math.max(0, trackPx) };
  const heightPx = Math.min(trackPx, Math.max(MIN_THUMB_PX, (viewLines / totalLines) * trackPx));
  const fraction = Math.min(1, Math.max(0, firstLine / (totalLines - viewLines)));
  return { topPx: fraction * (trackPx - heightPx), heightPx };
}

/** The fraction of the way, 0 to 1, that a dragged thumb stands for. */
export function fractionOf(topPx: number, thumb: Thumb, trackPx: number): number {
  const wayPx = trackPx - thumb.heightPx;
  return wayPx <= 0 ? 0 : Math.min(1, Math.max(0, topPx / wayPx));
}

/**
 * Where rows stand, in pixels. Only the window's rows have a place in the scrolling element, so that its
 * height stays small whatever the stream's length; the scroll track speaks of the whole stream.
 */

/** Height of a row, or of each visual line of a wrapped one, pixels; the style sheet says the same. */
export const ROW_PX = 20;

/** Room above the first and below the last row, pixels. */
export const EDGE_PX = 8;

/** Rows painted beyond the view on either side, ready to be scrolled to. */
const OVERSCAN_ROWS = 12;

/** The same while the view follows: these rows are others in the next frame. */
const FOLLOWING_OVERSCAN_ROWS = 3;

/** The rows to paint: [from, to). */
export interface Slice {
  readonly from: number;
  readonly to: number;
}

/** Where the rows of a window stand, one below the other. */
export interface Places {
  readonly count: number;
  /** Upper edge of a row, pixels below that of the first one; of `count`: the lower edge of the last one. */
  topPx(index: number): number;
  /** Index of the row at a place; of the first or last one where the place is above or below all. */
  rowAt(px: number): number;
}

/** Rows of one visual line each. */
export function evenPlaces(count: number): Places {
  return {
    count,
    topPx: (index) => index * ROW_PX,
    rowAt: (px) => Math.max(0, Math.min(count - 1, Math.floor(px / ROW_PX))),
  };
}

/** Rows of heights of their own, pixels. */
export function unevenPlaces(heightsPx: readonly number[]): Places {
  const tops = new Float64Array(heightsPx.length + 1);
  for (const [at, heightPx] of heightsPx.entries()) tops[at + 1] = (tops[at] ?? 0) + heightPx;
  const topPx = (index: number): number => tops[index] ?? 0;
  const count = heightsPx.length;
  return {
    count,
    topPx,
    rowAt: (px) => {
      let low = 0;
      let high = Math.max(0, count - 1);
      while (low < high) {
        const middle = (low + high + 1) >>> 1;
        if (topPx(middle) <= px) low = middle;
        else high = middle - 1;
      }
      return low;
    },
  };
}

export function sliceAt(scrollTopPx: number, viewPx: number, places: Places, follows = false): Slice {
  const { count } = places;
  if (count === 0) return { from: 0, to: 0 };
  const overscan = follows ? FOLLOWING_OVERSCAN_ROWS : OVERSCAN_ROWS;
  const from = Math.max(0, places.rowAt(scrollTopPx - EDGE_PX) - overscan);
  return { from, to: Math.min(count, places.rowAt(scrollTopPx - EDGE_PX + viewPx) + 1 + overscan) };
}

export function contentPx(places: Places): number {
  return places.topPx(places.count) + 2 * EDGE_PX;
}

export function maxScrollPx(places: Places, viewPx: number): number {
  return Math.max(0, contentPx(places) - viewPx);
}

export function rowTopPx(index: number, places: Places): number {
  return EDGE_PX + places.topPx(index);
}

/** Index of the row that stands `belowPx` under the upper edge of the view. */
export function topRow(scrollTopPx: number, places: Places, belowPx = 0): number {
  return places.rowAt(scrollTopPx - EDGE_PX + belowPx);
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

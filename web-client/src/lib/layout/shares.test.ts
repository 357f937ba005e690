import fc from "fast-check";
import { expect, test } from "vitest";
import { equalShares, MIN_SHARE, moveBorder } from "./shares";

test("a border moves between its neighbours and leaves both some room", () => {
  const halves = [0.5, 0.5];
  const percent = (shares: readonly number[]): number[] => shares.map((share) => Math.round(share * 100));
  expect(percent(moveBorder(halves, 0, 0.2))).toEqual([70, 30]);
  expect(percent(moveBorder(halves, 0, 2))).toEqual([90, 10]);
  expect(percent(moveBorder(halves, 0, -2))).toEqual([10, 90]);
  expect(moveBorder(halves, 1, 0.2), "there is no border behind the last").toEqual(halves);
});

test("whatever is moved, all room stays given out and no pane vanishes", () => {
  const moves = fc.array(fc.tuple(fc.nat(5), fc.double({ min: -1, max: 1, noNaN: true })), { maxLength: 30 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), moves, (count, all) => {
      let shares = equalShares(count);
      for (const [at, by] of all) shares = moveBorder(shares, at, by);
      expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1);
      for (const share of shares) expect(share).toBeGreaterThan(MIN_SHARE - 1e-9);
    }),
  );
});

/**
 * Unpacks one Zstandard frame (RFC 8878). The frame's own claims are checked before a byte is unpacked, so
 * that a small frame cannot ask for much memory.
 */
import { decompress } from "fzstd";
import { BlockError } from "./column";

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

/** A mebibyte of text never needs a larger window, whatever the level. */
const MAX_WINDOW_BYTES = 8 * 1_048_576;

/** The content of a frame that has to be `textBytes` long. Throws BlockError when it is not. */
export function unpack(frame: Uint8Array, textBytes: number): Uint8Array {
  const header = readHeader(frame);
  if (header.contentBytes !== textBytes || header.windowBytes > MAX_WINDOW_BYTES) {
    throw new BlockError(`the zstd frame says ${header.contentBytes} bytes, the block ${textBytes}`);
  }
  let text: Uint8Array;
  try {
    // With a buffer of our own fzstd takes seven times as long.
    text = decompress(frame);
  } catch (cause) {
    throw new BlockError("the zstd frame does not unpack", { cause });
  }
  if (text.length !== textBytes) throw new BlockError("the zstd frame does not unpack to its declared size");
  return text;
}

function readHeader(frame: Uint8Array): { contentBytes: number; windowBytes: number } {
  const descriptor = frame[4];
  if (MAGIC.some((byte, at) => frame[at] !== byte) || descriptor === undefined) {
    throw new BlockError("the text is no zstd frame");
  }
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 2 ** sizeFlag;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeAt = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  if (sizeBytes === 0 || frame.length < sizeAt + sizeBytes) throw new BlockError("the zstd frame does not state its size");
  let contentBytes = sizeBytes === 2 ? 256 : 0;
  for (let at = 0; at < sizeBytes; at += 1) contentBytes += (frame[sizeAt + at] ?? 0) * 256 ** at;
  if (isSingleSegment) return { contentBytes, windowBytes: contentBytes };
  const window = frame[5] ?? 0;
  const base = 2 ** (10 + (window >> 3));
  return { contentBytes, windowBytes: base + (base / 8) * (window & 7) };
}

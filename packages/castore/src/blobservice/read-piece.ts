import { type Task, taskOf } from "../worker/lane.ts";
import { runTask } from "../worker/lanes.ts";
import { type CutPiece, type PieceToRead, readPieceInto } from "./cut-pieces.ts";

const READ_PIECE: Task<typeof readPieceInto> = taskOf(
  import.meta.url,
  "cut-pieces",
  "readPieceInto",
);

/**
 * Reads and cuts a piece of a file, in this thread unless a lane has nothing to do: the next piece begins where this one
 * ends, so lanes would wait for it.
 */
export async function readPiece(piece: PieceToRead): Promise<CutPiece> {
  return await runTask(READ_PIECE, piece, { here: readPieceInto, isShort: true });
}

export {
  closeDatabase,
  type DatabaseFormat,
  type OpenDatabaseOptions,
  openDatabase,
  openForeignDatabase,
  sqliteError,
} from "./database.ts";
export { databaseSize } from "./file-sizes.ts";
export {
  KeyValueTable,
  type KeyValueTableOptions,
  type Row,
  type WriteRowsOptions,
} from "./key-value-table.ts";
export { SpillTable } from "./spill-table.ts";
export type { Database } from "./sqlite.ts";

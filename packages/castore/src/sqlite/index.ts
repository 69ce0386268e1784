export {
  beginWrite,
  type Database,
  type DatabaseFormat,
  openDatabase,
  rollback,
  sqliteError,
  syncFolder,
  writeTransaction,
} from "./database.ts";
export { KeyValueTable, type KeyValueTableOptions, type Row } from "./key-value-table.ts";

//! The promoted columns of the table, and how it gets more of them.
//!
//! **Guarantees.** A column is added by one commit of its own before any file has it; two writers that
//! add the same column at the same time add it once. No column is ever changed or removed.
//!
//! **Not guaranteed.** A column that another writer adds later is not seen before the next start.

use std::sync::Arc;

use delta_kernel::KernelResult;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::schema::{DataType, StructField};
use delta_kernel::transaction::{Transaction, UpdateTableOperation};

use super::change::{Change, Standing};
use super::{ENGINE_INFO, Table, built_in};
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::NewFile;
use crate::promoted::{
    KINDS, PromotedColumn, Promotion, TABLE_COLUMNS_MAX, TableColumns, is_column_name, name_of,
};
use crate::schema::Kind;

/// How Delta calls a kind.
pub(super) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text => DataType::STRING,
        Kind::Int => DataType::INTEGER,
        Kind::Long => DataType::LONG,
        Kind::Double => DataType::DOUBLE,
        Kind::Boolean => DataType::BOOLEAN,
        Kind::Timestamp => DataType::TIMESTAMP_NTZ,
    }
}

fn kind_of(found: &DataType) -> Option<Kind> {
    KINDS.into_iter().find(|&kind| data_type(kind) == *found)
}

/// Columns that the table is to have.
struct Addition<'a> {
    columns: Vec<&'a PromotedColumn>,
}

impl Table {
    /// Adds those columns of `promotion` that the table lacks, and gives all that it has then.
    ///
    /// # Errors
    ///
    /// [`LakeError::Column`] when the table has one of them with another type;
    /// [`LakeError::Columns`] when it would have too many; otherwise as [`Table::commit`].
    pub fn promote(&mut self, promotion: &Promotion) -> Result<TableColumns> {
        let wanted = Addition { columns: promotion.columns().collect() };
        if !wanted.missing(self)?.is_empty() {
            let _ = self.carry_out(&wanted)?;
            self.write_checksum();
        }
        Ok(self.columns())
    }

    /// The columns that the table has.
    #[must_use]
    pub fn columns(&self) -> TableColumns {
        TableColumns::new(self.promoted().take(TABLE_COLUMNS_MAX).collect())
    }

    /// The promoted columns. Columns of other types or with other names are another writer's: nobody
    /// here reads them, and files that have them are not joined.
    fn promoted(&self) -> impl Iterator<Item = PromotedColumn> {
        let schema = self.snapshot.schema();
        let promoted = |field: &StructField| {
            let name = field.name().to_owned();
            let kind = kind_of(field.data_type()).filter(|_| is_column_name(&name))?;
            Some(PromotedColumn { name, kind })
        };
        let found: Vec<_> = schema.fields().filter_map(promoted).collect();
        found.into_iter().filter(|column| built_in().all(|field| *field.name() != column.name))
    }
}

impl Addition<'_> {
    /// Those that `table` lacks.
    fn missing(&self, table: &Table) -> Result<Vec<&PromotedColumn>> {
        let schema = table.snapshot.schema();
        let mut missing = Vec::new();
        for &column in &self.columns {
            match schema.field(&column.name) {
                None => missing.push(column),
                Some(field) if *field.data_type() == data_type(column.kind) => {}
                Some(field) => {
                    let found = kind_of(field.data_type());
                    return Err(LakeError::Column {
                        column: column.name.clone(),
                        found: found.map_or(field.data_type().to_string(), |it| name_of(it).into()),
                        wanted: name_of(column.kind),
                    });
                }
            }
        }
        let count = table.promoted().count() + missing.len();
        if !missing.is_empty() && count > TABLE_COLUMNS_MAX {
            return Err(LakeError::Columns { count, max: TABLE_COLUMNS_MAX });
        }
        Ok(missing)
    }
}

impl Change for Addition<'_> {
    fn standing(&self, table: &Table) -> Result<Standing> {
        let is_there = self.missing(table)?.is_empty();
        Ok(if is_there { Standing::After } else { Standing::Before })
    }

    fn transaction(&self, table: &Table) -> KernelResult<Transaction> {
        let operation = UpdateTableOperation::AlterTable;
        let mut update = Arc::clone(&table.snapshot).update_table(operation, ENGINE_INFO, false);
        // `standing` has been asked on this very version.
        for column in self.missing(table).unwrap_or_default() {
            update = update.add_column(StructField::nullable(&column.name, data_type(column.kind)));
        }
        update.build(&table.kernel, Box::new(FileSystemCommitter::new()))
    }

    fn added(&self) -> &[NewFile] {
        &[]
    }
}

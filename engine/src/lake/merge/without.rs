//! One Parquet file without some of its rows.

use arrow::compute::{filter_record_batch, not};

use super::BATCH_MAX;
use super::input::{Opened, Range, schema_of};
use crate::lake::delta::DataFile;
use crate::lake::erase::Doomed;
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::NewFile;
use crate::lake::location::{Location, check_node};
use crate::lake::output::{Effort, Events, Output};

/// Writes the rows of `input` that are not `doomed` to a new file of `node`, in their order; `None`
/// when there are no such rows. The new file is as sound as one of [`merge`](super::merge), whose
/// errors and `go_on` it shares.
///
/// # Errors
///
/// As [`merge`](super::merge).
pub fn without(
    location: &Location,
    node: &str,
    input: &DataFile,
    doomed: &Doomed<'_>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<NewFile>> {
    check_node(node)?;
    let step = &mut || if go_on() { Ok(()) } else { Err(LakeError::GivenUp) };
    let opened = Opened::open(input)?;
    let schema = schema_of(std::slice::from_ref(&opened))?;
    let mut rows = opened.read(Range { from: None, to: None }, &schema, BATCH_MAX)?;
    let (mut output, mut kept) = (None, Events::default());
    while let Some(batch) = rows.next()? {
        step()?;
        let failed =
            |error: arrow::error::ArrowError| LakeError::parquet(&*input.local)(error.into());
        let wanted = not(&doomed(&batch)).map_err(failed)?;
        let batch = filter_record_batch(&batch, &wanted).map_err(failed)?;
        if batch.num_rows() == 0 {
            continue;
        }
        kept.add(&batch);
        let output = match &mut output {
            Some(output) => output,
            none => {
                none.insert(Output::create(location, node, &input.date, &schema, Effort::More)?)
            }
        };
        output.write(&batch)?;
    }
    output.map(|output| output.finish(kept, step)).transpose()
}

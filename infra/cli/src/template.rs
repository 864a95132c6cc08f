//! The table's shape, read from `template.yaml`, which describes it once for AWS and for local runs.

use keyward_store::TableShape;
use serde::Deserialize;

const TEMPLATE: &str = include_str!("../../../template.yaml");

#[derive(Deserialize)]
struct Template {
    #[serde(rename = "Resources")]
    resources: Resources,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(rename = "Table")]
    table: Table,
}

#[derive(Deserialize)]
struct Table {
    #[serde(rename = "Properties")]
    properties: TableShape,
}

/// The shape that the template gives the table.
///
/// # Errors
/// The template is not YAML, or its table lacks something that a local one needs.
pub(crate) fn table_shape() -> Result<TableShape, serde_saphyr::Error> {
    let template: Template = serde_saphyr::from_str(TEMPLATE)?;
    Ok(template.resources.table.properties)
}

//! The registry of models: every bundle that scored something, so that any score can be proved
//! again.

use std::io::Read;

use super::{Store, StoreError};
use crate::model::{BUNDLE_BYTES_MAX, Bundle, BundleDefect};

/// zstd's own default: a bundle becomes a fifth, in a fraction of a second.
const COMPRESSION_LEVEL: i32 = 3;

const REGISTER_SQL: &str = "
INSERT INTO models (checksum, training_from, training_until, windows, lines, bundle)
SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT FROM models WHERE checksum = $1)
ON CONFLICT (checksum) DO NOTHING RETURNING checksum";

const LOAD_SQL: &str = "SELECT bundle FROM models WHERE checksum = $1";

impl Store {
    /// Keeps a model under its checksum; returns whether it was new.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, or has no schema.
    pub async fn register_model(&self, bundle: &Bundle) -> Result<bool, StoreError> {
        let summary = bundle.summary();
        let body = packed(bundle).map_err(|error| self.model_error(bundle.checksum(), error))?;
        let rows = self
            .query(
                "register the model",
                REGISTER_SQL,
                &[
                    &&**bundle.checksum(),
                    &summary.from.to_datetime(),
                    &summary.to.to_datetime(),
                    &i64::try_from(summary.windows).unwrap_or(i64::MAX),
                    &i64::try_from(summary.lines).unwrap_or(i64::MAX),
                    &body,
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    /// Returns the model with this checksum, `None` if the registry has none.
    ///
    /// # Errors
    /// The server is not reachable, refuses the role, has no schema, or holds something else than
    /// that model.
    pub async fn model(&self, checksum: &str) -> Result<Option<Bundle>, StoreError> {
        let rows = self.query("load a model", LOAD_SQL, &[&checksum]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let bundle = unpack(row.get(0)).map_err(|source| self.model_error(checksum, source))?;
        if **bundle.checksum() != *checksum {
            return Err(self.model_error(checksum, BundleDefect::Checksum.into()));
        }
        Ok(Some(bundle))
    }

    pub(super) fn model_error(
        &self,
        checksum: &str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> StoreError {
        StoreError::Model {
            server: self.config.server(),
            checksum: checksum.to_owned(),
            source,
        }
    }
}

/// Returns a model as the registry keeps it.
pub(super) fn packed(bundle: &Bundle) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(zstd::encode_all(&*bundle.to_bytes()?, COMPRESSION_LEVEL)?)
}

fn unpack(body: &[u8]) -> Result<Bundle, Box<dyn std::error::Error + Send + Sync>> {
    let mut text = Vec::new();
    // One byte more than allowed tells that it is too large without unpacking it all.
    zstd::Decoder::new(body)?
        .take(BUNDLE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(Bundle::from_bytes(&text)?)
}

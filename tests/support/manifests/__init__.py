"""The manifests as documents, and processes with the privileges that a manifest gives."""

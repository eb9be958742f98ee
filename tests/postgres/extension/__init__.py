"""The extension: proofs on running servers."""

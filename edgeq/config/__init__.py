"""Configuration: `edgeq.toml` to frozen structs, with every error named at once."""

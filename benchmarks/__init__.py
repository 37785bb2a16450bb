"""Benchmarks: `compare` (side by side with other proxies), `profile` (where the time goes), `micro_*` (parts)."""

"""The named recipes, one TOML file each; `lock.json` holds their digests, which never change."""

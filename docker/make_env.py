"""
Write .env beside docker-compose.yml, with random secrets that only its owner can read: python3 docker/make_env.py

SUITE_OWNER is whoever this source belongs to, as numbers: what the suite writes into it belongs to them as well.
"""

import os
import sys
from pathlib import Path
from secrets import token_urlsafe

NAMES = ("POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD")
PATH = Path(__file__).resolve().parents[1] / ".env"

try:
    descriptor = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
except FileExistsError:
    sys.exit(f"{PATH} is there already, and volumes may know its passwords: remove both (docker compose down --volumes) or keep both")
source = PATH.parent.stat()
with open(descriptor, "w", encoding="utf-8") as file:
    file.write(f"SUITE_OWNER={source.st_uid}:{source.st_gid}\n")
    file.writelines(f"{name}={token_urlsafe(24)}\n" for name in NAMES)

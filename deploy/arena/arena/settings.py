"""Settings of the sample project, all of them from the environment.

What a team changes to stand behind Bookend is DB_HOST and DB_PORT (and DB_READ_HOST/DB_READ_PORT
when it has a read replica). Two further settings matter with a transaction pool:

* DISABLE_SERVER_SIDE_CURSORS: not needed. `QuerySet.iterator()` otherwise declares a cursor WITH HOLD,
  and its connection keeps one of the pool's servers until it is read to its end.
* CONN_MAX_AGE: connections to the pool are cheap to keep, so keep them.
"""
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


def flag(name: str, default: bool) -> bool:
    """Reads a yes/no variable; an empty one counts as unset."""
    value = os.environ.get(name, "").strip().lower()
    return default if not value else value in ("1", "true", "yes", "on")


REPLICA_NAME = os.environ.get("REPLICA_NAME", "web-0")
WEB_THREADS = int(os.environ.get("WEB_THREADS", "4"))
# For tests: a /health/ that always says yes, so that something else has to notice.
HEALTH_IGNORES_DATABASE = flag("HEALTH_IGNORES_DATABASE", False)

SECRET_KEY = os.environ.get("SECRET_KEY", "sample-project-only")
DEBUG = flag("DEBUG", False)
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "arena.urls"
WSGI_APPLICATION = "arena.wsgi.application"
ASGI_APPLICATION = "arena.asgi.application"
INSTALLED_APPS = ["shop"]
MIDDLEWARE = [
    "shop.errors.JsonErrors",
    "django.middleware.common.CommonMiddleware",
]

# Behind a balancer that replaces what clients send, these may be believed.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
USE_X_FORWARDED_HOST = flag("USE_X_FORWARDED_HOST", False)

# --- databases ---------------------------------------------------------------------------------


def database(name: str, host: str, port: str) -> dict:
    """Returns one entry of DATABASES; both aliases differ in name, host and port alone."""
    options: dict = {
        "connect_timeout": int(os.environ.get("DB_CONNECT_TIMEOUT", "10")),
        # Who this connection belongs to: /db/connections/ and pg_stat_activity say so, even where
        # several replicas share an address.
        "application_name": REPLICA_NAME,
    }
    timeout_ms = os.environ.get("DB_STATEMENT_TIMEOUT_MS", "30000")
    if timeout_ms not in ("", "0"):
        options["options"] = f"-c statement_timeout={int(timeout_ms)}"
    # Django leaves prepared statements off; a number here makes psycopg prepare a query once it
    # has run that often.
    threshold = os.environ.get("DB_PREPARE_THRESHOLD", "")
    if threshold:
        options["prepare_threshold"] = int(threshold)
        options["server_side_binding"] = True
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": os.environ.get("DB_USER", "arena_user"),
        "PASSWORD": os.environ.get("DB_PASSWORD", ""),
        "HOST": host,
        "PORT": port,
        "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "600")),
        "CONN_HEALTH_CHECKS": flag("CONN_HEALTH_CHECKS", True),
        "DISABLE_SERVER_SIDE_CURSORS": flag("DISABLE_SERVER_SIDE_CURSORS", True),
        "OPTIONS": options,
    }


DATABASES = {
    "default": database(
        os.environ.get("DB_NAME", "arena_db"),
        os.environ.get("DB_HOST", "127.0.0.1"),
        os.environ.get("DB_PORT", "5432"),
    )
}
if os.environ.get("DB_READ_HOST"):
    DATABASES["read"] = database(
        os.environ.get("DB_READ_NAME", "arena_db_read"),
        os.environ["DB_READ_HOST"],
        os.environ.get("DB_READ_PORT") or DATABASES["default"]["PORT"],
    )
DATABASE_ROUTERS = ["arena.router.ReadRouter"]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("LOG_LEVEL", "WARNING")},
}

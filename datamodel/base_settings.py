"""Settings common to both roles. Everything comes from the environment (`INVENTORY_…`, `DATABASE_URL`, `REDIS_URL`).

Importing this starts nothing and reaches nothing.
"""

from __future__ import annotations

import base64
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datamodel import env, vosi
from datamodel.pooling import PooledConnection

BASE_DIR = Path(__file__).resolve().parent.parent

INVENTORY_ROLE = env.text("INVENTORY_ROLE", "site")
INVENTORY_NAME = env.text("INVENTORY_NAME", INVENTORY_ROLE)
INVENTORY_VERSION = "0.1.0"
INVENTORY_BASE_PATH = env.base_path()
INVENTORY_PUBLIC_URL = env.text("INVENTORY_PUBLIC_URL", "http://127.0.0.1:8000").rstrip("/")

DEBUG = False
_PUBLIC_HOST = urlsplit(INVENTORY_PUBLIC_URL).hostname or "127.0.0.1"
_HOSTS = [f"[{_PUBLIC_HOST}]" if ":" in _PUBLIC_HOST else _PUBLIC_HOST, "localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.words("INVENTORY_ALLOWED_HOSTS", ",".join(_HOSTS))
CSRF_TRUSTED_ORIGINS = env.words("INVENTORY_CSRF_TRUSTED_ORIGINS", "/".join(INVENTORY_PUBLIC_URL.split("/")[:3]))


def _secret_key() -> env.Secret:
    """Given, or (development and the demo) derived from nothing but this process: then sessions end with it."""
    return env.secret("INVENTORY_SECRET_KEY", "") or env.Secret(base64.b64encode(os.urandom(48)).decode())


SECRET_KEY = _secret_key()
INVENTORY_SECRET_KEY_IS_TEMPORARY = env.text("INVENTORY_SECRET_KEY", "") == ""
SECRET_KEY_FALLBACKS = [env.Secret(word) for word in env.words("INVENTORY_SECRET_KEY_FALLBACKS")]

BASE_APPS = [
    # Its pages are loaded with the routes: workers have none, and start without them.
    "datamodel.audit.site.RecordedAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    # Its tables are there also where nobody signs in elsewhere: a backup then fits whatever is configured.
    "datamodel.login.apps.AccountConfig",
    "allauth.socialaccount",
    "datamodel.login",
    "datamodel",
    "datamodel.alarms",
    "datamodel.audit",
    "datamodel.snapshots",
    "harvest",
    "harvest.reconcile",
]

# Memory-hard, and a tenth of the processor time of the default. What older hashers made is still accepted.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
# Roles of operators hold in the admin, too.
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "datamodel.roles.RoleBackend"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "datamodel.middleware.RequestLogMiddleware",
    "datamodel.audit.middleware.AuditMiddleware",
    "datamodel.certificates.CertificateHeaderMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "datamodel.middleware.AnswerMiddleware",
    "datamodel.middleware.ProblemMiddleware",
    "datamodel.middleware.LoginMiddleware",
    "datamodel.middleware.RestorationMiddleware",
]
# What only pages need, whose browser sends cookies (`application.py`).
# What is of use to browsers' sessions only, and what says the same of every answer (`application.py`).
CONSTANT_MIDDLEWARE = frozenset(
    {
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    }
)
PAGE_MIDDLEWARE = frozenset(
    {
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "datamodel.middleware.LoginMiddleware",
    }
)

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# A statement of a hot path that a connection has sent so often is prepared on it.
_PREPARED_AFTER = 5
# Transaction and statement limits are the server's last word against a stuck client: no transaction that writes may span
# network or storage I/O, and an old transaction holds back the feed of the whole cluster. To compile a page of a listing (which
# PostgreSQL does where it expects many rows, if it was built for that) takes longer than to read it.
DATABASE_LIMITS = (
    "-c statement_timeout={statement} -c idle_in_transaction_session_timeout={idle} -c lock_timeout={lock} -c jit=off"
)
_DATABASE_URL = env.secret("DATABASE_URL", "")
INVENTORY_DATABASE_CONFIGURED = bool(_DATABASE_URL)
INVENTORY_DIRECT_DATABASE_URL: str = env.secret("INVENTORY_DIRECT_DATABASE_URL", _DATABASE_URL)


def _database() -> dict[str, Any]:
    configured: dict[str, Any] = env.database(_DATABASE_URL or "postgresql://not-configured@/inventory")
    limits = DATABASE_LIMITS.format(
        statement=env.integer("INVENTORY_STATEMENT_TIMEOUT_SECONDS", 60, minimum=1) * 1000,
        idle=env.integer("INVENTORY_IDLE_TRANSACTION_SECONDS", 30, minimum=1) * 1000,
        lock=env.integer("INVENTORY_LOCK_TIMEOUT_SECONDS", 10, minimum=1) * 1000,
    )
    # A request that gets no connection within `timeout` is answered with 503, rather than kept while others pile up.
    size = env.integer("INVENTORY_DATABASE_POOL", 20, minimum=1)
    pool = {"min_size": 0, "max_size": size, "timeout": 10, "connection_class": PooledConnection}
    configured["OPTIONS"] |= {"pool": pool}
    has_session = env.flag("INVENTORY_DATABASE_STARTUP_OPTIONS", default=True)
    if has_session:
        configured["OPTIONS"]["options"] = limits
    # A pooler of transactions sends the next one to another connection, where nothing is prepared.
    if env.flag("INVENTORY_PREPARED_STATEMENTS", default=has_session):
        configured["OPTIONS"]["prepare_threshold"] = _PREPARED_AFTER
    configured["CONN_HEALTH_CHECKS"] = True
    configured["ATOMIC_REQUESTS"] = False
    return configured


DATABASES = {"default": _database()}

_REDIS_URL = env.text("REDIS_URL", "redis://127.0.0.1:6379/0")
INVENTORY_CELERY_URL, INVENTORY_DRAMATIQ_URL = env.redis_urls(_REDIS_URL)

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "datamodel.formats"
STATIC_URL = f"/{INVENTORY_BASE_PATH}static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
LOGIN_URL = "admin:login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# The proxy sends browsers from http to https; probes and peers inside speak plain HTTP. Neighbouring host names and lists of
# browsers' makers are the owner's of the domain.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]

# One host may run several inventories under base paths: their cookies must not overwrite each other.
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"/{INVENTORY_BASE_PATH}"
SESSION_COOKIE_NAME = "inventory_session"
CSRF_COOKIE_NAME = "inventory_csrf"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = INVENTORY_PUBLIC_URL.startswith("https://")
SESSION_COOKIE_HTTPONLY = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
# An operator's session ends with the working day.
SESSION_COOKIE_AGE = 12 * 3600
# Where the public URL is https, browsers are told to use nothing else for so long.
SECURE_HSTS_SECONDS = env.integer("INVENTORY_HSTS_SECONDS", 31_536_000) if SESSION_COOKIE_SECURE else 0
X_FRAME_OPTIONS = "DENY"

# The byte plane reads its input stream itself; Django's own limits guard forms and JSON.
DATA_UPLOAD_MAX_MEMORY_SIZE = env.integer("INVENTORY_MAX_REQUEST_BYTES", 16 * 1024 * 1024, minimum=1024)

# Requests/seconds of one caller, of one address, and of wrong credentials from one address; empty: no limit.
INVENTORY_RATE_PER_CALLER = env.rate("INVENTORY_RATE_PER_CALLER", "")
INVENTORY_RATE_PER_ADDRESS = env.rate("INVENTORY_RATE_PER_ADDRESS", "")
INVENTORY_RATE_FAILED = env.rate("INVENTORY_RATE_FAILED", "60/60")

INVENTORY_ANONYMOUS_READ = env.flag("INVENTORY_ANONYMOUS_READ", default=False)
INVENTORY_CONTENT_ALGORITHM = env.text("INVENTORY_CONTENT_ALGORITHM", "md5")
INVENTORY_SHA256 = env.flag("INVENTORY_SHA256", default=True)
INVENTORY_LEGACY_TOKENS = env.flag("INVENTORY_LEGACY_TOKENS", default=False)
INVENTORY_TRANSFER_SECONDS = env.integer("INVENTORY_TRANSFER_SECONDS", 3600, minimum=1)
INVENTORY_GRACEFUL_SECONDS = env.integer("INVENTORY_GRACEFUL_SECONDS", 30, minimum=1)
INVENTORY_HARVEST_SECONDS = env.integer("INVENTORY_HARVEST_SECONDS", 30, minimum=1)
# While it works a harvest gives a sign of life every ten seconds; one that has given none for so long is given up.
INVENTORY_HARVEST_LEASE_SECONDS = env.integer("INVENTORY_HARVEST_LEASE_SECONDS", 60, minimum=12)
# Removals a day that a peer's news may cause unasked: so many, or this share of all artifacts, whichever is more.
INVENTORY_BRAKE_COUNT = env.integer("INVENTORY_BRAKE_COUNT", 10_000, minimum=0)
INVENTORY_BRAKE_PERCENT = env.integer("INVENTORY_BRAKE_PERCENT", 5, minimum=0)
INVENTORY_HARVEST_BATCH = env.integer("INVENTORY_HARVEST_BATCH", 10_000, minimum=1)
INVENTORY_LONG_POLLS = env.integer("INVENTORY_LONG_POLLS", 16, minimum=1)
INVENTORY_REMOTE_TIMEOUT_SECONDS = env.integer("INVENTORY_REMOTE_TIMEOUT_SECONDS", 20, minimum=1)
# How often each remote is compared with this inventory, and what is then done: report, add (nothing that removes), or all.
INVENTORY_RECONCILE_SECONDS = env.integer("INVENTORY_RECONCILE_SECONDS", 3600, minimum=1)
INVENTORY_RECONCILE = env.choice("INVENTORY_RECONCILE", "add", ("report", "add", "all"))
# Events that every peer has passed are kept for so long (0: for ever); never shorter than backups that may be restored.
INVENTORY_EVENT_RETENTION_DAYS = env.integer("INVENTORY_EVENT_RETENTION_DAYS", 180)
INVENTORY_OLDEST_BACKUP_DAYS = env.integer("INVENTORY_OLDEST_BACKUP_DAYS", 90)
# How long what was replaced or deleted is remembered (not its bytes): so far back the inventory as of a moment can be asked for.
INVENTORY_HISTORY_SECONDS = env.integer("INVENTORY_HISTORY_SECONDS", 400 * 24 * 3600)
# A query that names who has to speak before a snapshot is final; "": nobody else.
INVENTORY_SNAPSHOT_AWAITS = ""
INVENTORY_NAMESPACES = env.words("INVENTORY_NAMESPACES")
# Whose bearer JWTs are believed: see the README of datamodel; addresses of their keys are public ones unless this says otherwise.
INVENTORY_OIDC_ISSUERS = env.text("INVENTORY_OIDC_ISSUERS", "[]")
INVENTORY_OIDC_LEEWAY_SECONDS = env.integer("INVENTORY_OIDC_LEEWAY_SECONDS", 60)
INVENTORY_OIDC_KEYS_SECONDS = env.integer("INVENTORY_OIDC_KEYS_SECONDS", 3600, minimum=1)
INVENTORY_OIDC_PRIVATE = env.flag("INVENTORY_OIDC_PRIVATE", default=False)
# Who is asked for what no local grant permits; their groups' names here; how old answers may be, also while they cannot be asked.
INVENTORY_PERMISSION_SERVICES = env.words("INVENTORY_PERMISSION_SERVICES")
INVENTORY_PERMISSION_GROUPS = env.text("INVENTORY_PERMISSION_GROUPS", "{}")
INVENTORY_PERMISSION_CERTIFICATE = env.text("INVENTORY_PERMISSION_CERTIFICATE", "")
INVENTORY_PERMISSION_TIMEOUT_SECONDS = env.integer("INVENTORY_PERMISSION_TIMEOUT_SECONDS", 2, minimum=1)
INVENTORY_PERMISSION_FRESH_SECONDS = env.integer("INVENTORY_PERMISSION_FRESH_SECONDS", 60)
INVENTORY_PERMISSION_STALE_READ_SECONDS = env.integer("INVENTORY_PERMISSION_STALE_READ_SECONDS", 3600)
INVENTORY_PERMISSION_STALE_WRITE_SECONDS = env.integer("INVENTORY_PERMISSION_STALE_WRITE_SECONDS", 300)
# Reverse proxies of ours (addresses, networks, or `unix`), and the headers in which they pass on a client's certificate ("": none).
INVENTORY_TRUSTED_PROXIES = env.words("INVENTORY_TRUSTED_PROXIES")
INVENTORY_CLIENT_CERTIFICATE_HEADER = env.text("INVENTORY_CLIENT_CERTIFICATE_HEADER", "")
INVENTORY_CLIENT_VERIFY_HEADER = env.text("INVENTORY_CLIENT_VERIFY_HEADER", "X-Client-Verify")
# Where users of the admin may sign in instead of by password ("": nowhere), and what is believed of them.
INVENTORY_LOGIN_ISSUER = env.text("INVENTORY_LOGIN_ISSUER", "")
INVENTORY_LOGIN_NAME = env.text("INVENTORY_LOGIN_NAME", "single sign-on")
INVENTORY_LOGIN_CLIENT_ID = env.text("INVENTORY_LOGIN_CLIENT_ID", "")
INVENTORY_LOGIN_CLIENT_SECRET: str = env.secret("INVENTORY_LOGIN_CLIENT_SECRET", "")
INVENTORY_LOGIN_SCOPES = env.words("INVENTORY_LOGIN_SCOPES", "profile")
INVENTORY_LOGIN_USER_CLAIM = env.text("INVENTORY_LOGIN_USER_CLAIM", "sub")
INVENTORY_LOGIN_GROUPS_CLAIM = env.text("INVENTORY_LOGIN_GROUPS_CLAIM", "groups")
INVENTORY_LOGIN_PREFIX = env.text("INVENTORY_LOGIN_PREFIX", "sso-")
INVENTORY_LOGIN_GROUPS = env.words("INVENTORY_LOGIN_GROUPS")
INVENTORY_LOGIN_SECONDS = env.integer("INVENTORY_LOGIN_SECONDS", 8 * 3600, minimum=60)
ACCOUNT_ADAPTER = "datamodel.login.adapters.AccountAdapter"
SOCIALACCOUNT_ADAPTER = "datamodel.login.adapters.SocialAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SIGNUP_FIELDS = ["username*"]
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5
# An inventory's own keys: how old the newest may become, and how long before it signs a new one is published.
INVENTORY_KEY_OVERLAP = timedelta(seconds=env.integer("INVENTORY_KEY_OVERLAP_SECONDS", 24 * 3600, minimum=1))
INVENTORY_KEY_PERIOD = timedelta(seconds=env.integer("INVENTORY_KEY_PERIOD_SECONDS", 30 * 24 * 3600, minimum=1))
INVENTORY_CA_FILE = env.text("INVENTORY_CA_FILE", "")

# Whom alarms are told: addresses, and webhooks as a JSON list of {name, url, secret}; what goes on is told again after so long.
INVENTORY_ALARM_EMAIL_TO = env.words("INVENTORY_ALARM_EMAIL_TO")
INVENTORY_ALARM_EMAIL_FROM = env.text("INVENTORY_ALARM_EMAIL_FROM", f"inventory@{_PUBLIC_HOST}")
INVENTORY_ALARM_WEBHOOKS = env.secret("INVENTORY_ALARM_WEBHOOKS", "[]")
# Webhooks at private addresses; without it nothing but public ones is called for them.
INVENTORY_ALARM_PRIVATE = env.flag("INVENTORY_ALARM_PRIVATE", default=False)
INVENTORY_ALARM_REPEAT_SECONDS = env.integer("INVENTORY_ALARM_REPEAT_SECONDS", 4 * 3600, minimum=1)
# Sealed entries of the audit that are older move into files in this directory; 0: they stay for ever.
INVENTORY_AUDIT_KEEP_DAYS = env.integer("INVENTORY_AUDIT_KEEP_DAYS", 0)
INVENTORY_AUDIT_ARCHIVE_DIR = env.text("INVENTORY_AUDIT_ARCHIVE_DIR", "")
_MAIL = env.mail_server(env.text("INVENTORY_EMAIL_URL", "smtp://localhost"))
EMAIL_HOST, EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.host, _MAIL.port, _MAIL.user, _MAIL.password
EMAIL_USE_SSL, EMAIL_USE_TLS, EMAIL_TIMEOUT = _MAIL.is_ssl, _MAIL.is_starttls, 10

# Who keeps the bytes of artifacts that were perhaps deleted elsewhere: a dotted name; where there are no bytes, nobody.
HARVEST_QUARANTINE = ""

# What the roles add to: modules that describe plain views, modules with gauges, checks of readiness, VOSI capabilities.
INVENTORY_SCHEMA_MODULES = [
    "datamodel.schema",
    "datamodel.alarms.schema",
    "datamodel.audit.schema",
    "datamodel.snapshots.schema",
    "datamodel.pairing.schema",
    "harvest.schema",
]
INVENTORY_METRICS_MODULES = [
    "datamodel.metrics",
    "datamodel.alarms.metrics",
    "datamodel.audit.metrics",
    "datamodel.permission_service.metrics",
    "datamodel.snapshots.metrics",
    "harvest.metrics",
    "harvest.reconcile.metrics",
]
INVENTORY_METRICS_PUBLIC = env.flag("INVENTORY_METRICS_PUBLIC", default=False)
# A database that forgets what it has acknowledged is for tests.
INVENTORY_ALLOW_UNSAFE_DATABASE = env.flag("INVENTORY_ALLOW_UNSAFE_DATABASE", default=False)
INVENTORY_READINESS: list[str] = []
INVENTORY_READINESS_SECONDS = env.integer("INVENTORY_READINESS_SECONDS", 5, minimum=1)
INVENTORY_STATE = ""
INVENTORY_CAPABILITIES: list[tuple[str, str]] = [(vosi.FILES, "files")]

# What a restored inventory does, in order, before it is open: (step, dotted name of a function of `restoration.StepOptions`).
RESTORATION_STEPS: list[tuple[str, str]] = [("reconcile", "harvest.restoring.reconcile_with_peers")]

# The schema of a new inventory: see `datamodel.baseline`. Each role has its own.
SCHEMA_BASELINE: Path

# Further steps of `manage.py provision`: dotted names of functions without arguments; each is idempotent.
PROVISION_STEPS: list[str] = []

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["datamodel.auth_drf.InventoryAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["datamodel.auth_drf.GrantRequired"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["datamodel.json_drf.BoundedJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "datamodel.problems.drf_exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "Storage inventory",
    "VERSION": INVENTORY_VERSION,
    # Paths are told without the base path, which `servers` names.
    "SCHEMA_PATH_PREFIX": f"/{INVENTORY_BASE_PATH}",
    "SCHEMA_PATH_PREFIX_TRIM": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "datamodel.openapi.complete_schema",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # Without this the page would ask a public service whether the schema is valid.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": "none", "displayRequestDuration": True},
}

LOG_LEVEL = env.text("INVENTORY_LOG_LEVEL", "INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "datamodel.logs.LineFormatter"}},
    "handlers": {"stderr": {"class": "datamodel.logs.LineHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "celery": {"level": "WARNING"},
        # Says when the worker is connected.
        "celery.apps.worker": {"level": "INFO"},
        "kombu": {"level": "WARNING"},
        "dramatiq": {"level": "INFO"},
        "boto3": {"level": "WARNING"},
        "botocore": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
    },
}

# Names of one Redis shared by several inventories never meet (house, decision 2).
CELERY_SETTINGS: dict[str, Any] = {
    "broker_url": INVENTORY_CELERY_URL,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"global_keyprefix": f"{INVENTORY_NAME}:", "visibility_timeout": 3600},
    "task_ignore_result": True,
    "task_acks_late": False,
    "task_default_queue": "decide",
    "worker_prefetch_multiplier": 1,
    "worker_hijack_root_logger": False,
    "worker_send_task_events": False,
    "timezone": "UTC",
}

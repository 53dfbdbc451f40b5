"""An app on django-lasuite: settings, addresses and WSGI. Sessions are Django's own, in the database."""

import os
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings

ISSUER = os.environ["ISSUER"]


def database():
    at = os.environ.get("POSTGRES")
    if not at:
        # WAL, as Django's documentation recommends for SQLite under load
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SQLITE"],
                "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}}
    u = urlsplit(at)
    schema = dict(p.split("=") for p in u.query.split("&"))["search_path"]
    return {"ENGINE": "django.db.backends.postgresql", "NAME": u.path[1:], "USER": u.username, "HOST": u.hostname,
            "PORT": u.port, "CONN_MAX_AGE": None, "OPTIONS": {"options": f"-c search_path={schema}"}}


settings.configure(
    SECRET_KEY="a secret of the bench alone, of enough bytes for Django",
    ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="peer", USE_TZ=True, AUTH_USER_MODEL="people.User",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", DATABASES={"default": database()},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "people"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.db",
    AUTHENTICATION_BACKENDS=["lasuite.oidc_login.backends.OIDCAuthenticationBackend"],
    OIDC_OP_URL=ISSUER, OIDC_OP_JWKS_ENDPOINT=ISSUER + "/jwks", OIDC_OP_AUTHORIZATION_ENDPOINT=ISSUER + "/authorize",
    OIDC_OP_TOKEN_ENDPOINT=ISSUER + "/token", OIDC_OP_USER_ENDPOINT=ISSUER + "/userinfo",
    OIDC_OP_LOGOUT_ENDPOINT=ISSUER + "/logout", OIDC_RP_CLIENT_ID=os.environ["CLIENT_ID"],
    OIDC_RP_CLIENT_SECRET=os.environ["CLIENT_SECRET"], OIDC_RP_SIGN_ALGO="RS256", OIDC_RP_SCOPES="openid email",
    OIDC_USE_NONCE=True, OIDC_FALLBACK_TO_EMAIL_FOR_IDENTIFICATION=False, OIDC_CREATE_USER=True,
    OIDC_AUTHENTICATE_CLASS="lasuite.oidc_login.views.OIDCAuthenticationRequestView",
    OIDC_CALLBACK_CLASS="lasuite.oidc_login.views.OIDCAuthenticationCallbackView",
    OIDC_STORE_ID_TOKEN=True, OIDC_USERINFO_FULLNAME_FIELDS=["name"], OIDC_USERINFO_SHORTNAME_FIELD="name",
    OIDC_USERINFO_ESSENTIAL_CLAIMS=[], OIDC_TIMEOUT=60, LOGIN_REDIRECT_URL="/check", LOGIN_REDIRECT_URL_FAILURE="/failed",
    LOGOUT_REDIRECT_URL="/", LOGGING_CONFIG=None,
)
sys.modules.setdefault("peer", sys.modules[__name__])
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402


def check(request):
    return HttpResponse("ok") if request.user.is_authenticated else HttpResponse(status=401)


urlpatterns = [path("check", check), path("", include("lasuite.oidc_login.urls"))]
application = get_wsgi_application()

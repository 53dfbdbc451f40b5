"""Makes the database, with so many people who are signed in."""

import sys

import peer  # noqa: F401

from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone

from people.models import User

call_command("migrate", run_syncdb=True, verbosity=0)
n = int(sys.argv[1])
people = [User(sub=f"loaded-{i}", name="Somebody", email=f"loaded-{i}@example.com") for i in range(n)]
User.objects.bulk_create(people, batch_size=500)
sessions, until = [], timezone.now() + timezone.timedelta(days=1)
for person in people:
    s = SessionStore()
    data = {"_auth_user_id": str(person.pk), "_auth_user_hash": "0" * 64,
            "_auth_user_backend": "lasuite.oidc_login.backends.OIDCAuthenticationBackend",
            "oidc_sid": "sid-" + person.sub, "oidc_id_token": "x" * 800, "oidc_states": {}}
    sessions.append(Session(session_key=s._get_new_session_key(), session_data=s.encode(data), expire_date=until))
Session.objects.bulk_create(sessions, batch_size=500)

"""The user, with the fields that django-lasuite needs."""

import uuid

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import UserManager
from django.db import models


class User(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    sub = models.CharField(max_length=255, unique=True, null=True)
    name = models.CharField(max_length=255, null=True)
    email = models.EmailField(null=True)
    is_active = models.BooleanField(default=True)

    objects = UserManager()
    USERNAME_FIELD = "sub"
    REQUIRED_FIELDS = []

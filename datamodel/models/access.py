"""Who may do what: grants of namespaces, and roles of operators (`datamodel/grants.py` decides by them)."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from datamodel.grants import Role
from datamodel.models.fields import UriField

_PRINCIPAL_LENGTH = 255


class NamespaceGrant(models.Model):
    """What a prefix of URIs is open to. Principals are `user:…`, `group:…`, `token:…`, `issuer:…`, `dn:…` or `*`.

    The prefix is a namespace, or empty for everything. `replaces`: what is granted for shorter prefixes does not hold below it.
    """

    prefix = UriField(unique=True, blank=True)
    anonymous_read = models.BooleanField(default=False)
    readers = ArrayField(models.CharField(max_length=_PRINCIPAL_LENGTH), default=list, blank=True)
    writers = ArrayField(models.CharField(max_length=_PRINCIPAL_LENGTH), default=list, blank=True)
    deleters = ArrayField(models.CharField(max_length=_PRINCIPAL_LENGTH), default=list, blank=True)
    harvesters = ArrayField(models.CharField(max_length=_PRINCIPAL_LENGTH), default=list, blank=True)
    replaces = models.BooleanField(default=False)
    note = models.CharField(max_length=200, default="", blank=True)
    changed_at = models.DateTimeField()

    class Meta:
        db_table = "namespace_grant"
        ordering = ("prefix",)
        constraints = (
            models.CheckConstraint(
                name="namespace_grant_prefix",
                condition=Q(prefix="") | Q(prefix__regex=r"^[A-Za-z][A-Za-z0-9+.-]*:(.*/|.*:)?$"),
            ),
        )

    def __str__(self) -> str:
        return self.prefix or "everything"


class RoleAssignment(models.Model):
    """One operator by role: a principal, and what it is for (`grants.Role`)."""

    principal = models.CharField(max_length=_PRINCIPAL_LENGTH)
    role = models.CharField(max_length=32)
    note = models.CharField(max_length=200, default="", blank=True)
    changed_at = models.DateTimeField()

    class Meta:
        db_table = "role_assignment"
        ordering = ("principal", "role")
        constraints = (
            models.UniqueConstraint(fields=["principal", "role"], name="role_assignment_once"),
            models.CheckConstraint(name="role_assignment_role", condition=Q(role__in=[str(role) for role in Role])),
        )

    def __str__(self) -> str:
        return f"{self.principal} is {self.role}"

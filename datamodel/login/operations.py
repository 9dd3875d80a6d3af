"""What a sign-in elsewhere makes of a user here."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser, Group
from django.db import transaction

from datamodel.login.rules import Person


def update_user(*, user: AbstractUser, person: Person, prefix: str) -> None:
    """Give a saved user the provider's groups and staff status, or take them from who is not admitted any more; a repeat changes nothing.

    Groups without the prefix are an operator's doing and stay. Nobody becomes superuser or active by this.
    """
    with transaction.atomic():
        names = person.groups if person.is_admitted else ()
        given = [Group.objects.get_or_create(name=name)[0] for name in names]
        user.groups.set([*user.groups.exclude(name__startswith=prefix), *given])
        if user.is_staff != person.is_admitted:
            user.is_staff = person.is_admitted
            user.save(update_fields=["is_staff"])

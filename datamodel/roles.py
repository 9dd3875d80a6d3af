"""What operators by role may do in the admin: an authentication backend that knows nobody, and adds to permissions."""

from __future__ import annotations

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db.models import Model

from datamodel import access, auth
from datamodel.grants import Role

# What decides about rights is for those who have all of them.
_ABOUT_RIGHTS = frozenset(
    {
        "user",
        "group",
        "permission",
        "session",
        "apitoken",
        "namespacegrant",
        "roleassignment",
        "preauthkeypair",
        "pairinginvitation",
    }
)


class RoleBackend(BaseBackend):
    """Operators by role in the admin: auditors look at everything, site operators change what is not about rights."""

    def has_perm(
        self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Model | None = None
    ) -> bool:  # as Django calls it
        del obj
        if not isinstance(user_obj, AbstractUser) or not user_obj.is_active:
            return False
        roles = _roles_of(user_obj)
        verb, _, model = perm.rpartition(".")[2].partition("_")
        if Role.ARCHIVE_OPERATOR in roles:
            return True
        if verb == "view":
            return bool(roles & {Role.AUDITOR, Role.SITE_OPERATOR})
        return Role.SITE_OPERATOR in roles and model not in _ABOUT_RIGHTS

    def has_module_perms(self, user_obj: AbstractBaseUser | AnonymousUser, app_label: str) -> bool:
        return self.has_perm(user_obj, f"{app_label}.view_")


def _roles_of(user: AbstractUser) -> frozenset[Role]:
    roles = access.current_table().roles
    return frozenset(role for name in auth.caller_of_user(user).principals for role in roles.get(name, ()))

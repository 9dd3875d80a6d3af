"""Grants of namespaces, roles, limits and rotation of API tokens; and every change of rights is told at once."""

import datamodel.models.fields
import django.contrib.postgres.fields
from django.db import migrations, models

# Sent with the commit, whoever changed the row. That a token was used is no news.
TELL = """
CREATE FUNCTION tell_access() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_notify('inventory_access', ''); RETURN NULL; END $$;
CREATE TRIGGER namespace_grant_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON namespace_grant
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER role_assignment_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON role_assignment
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER api_token_told AFTER INSERT OR DELETE OR TRUNCATE OR
    UPDATE OF name, digest, previous_digest, previous_until, grants, prefixes, methods, expires_at, revoked_at ON api_token
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
"""
SILENT = """
DROP TRIGGER api_token_told ON api_token;
DROP TRIGGER role_assignment_told ON role_assignment;
DROP TRIGGER namespace_grant_told ON namespace_grant;
DROP FUNCTION tell_access();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('datamodel', '0010_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='NamespaceGrant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('prefix', datamodel.models.fields.UriField(blank=True, max_length=512, unique=True)),
                ('anonymous_read', models.BooleanField(default=False)),
                ('readers', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255), blank=True, default=list, size=None)),
                ('writers', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255), blank=True, default=list, size=None)),
                ('deleters', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255), blank=True, default=list, size=None)),
                ('harvesters', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255), blank=True, default=list, size=None)),
                ('replaces', models.BooleanField(default=False)),
                ('note', models.CharField(blank=True, default='', max_length=200)),
                ('changed_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'namespace_grant',
                'ordering': ('prefix',),
            },
        ),
        migrations.CreateModel(
            name='RoleAssignment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('principal', models.CharField(max_length=255)),
                ('role', models.CharField(max_length=32)),
                ('note', models.CharField(blank=True, default='', max_length=200)),
                ('changed_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'role_assignment',
                'ordering': ('principal', 'role'),
            },
        ),
        migrations.AddField(
            model_name='apitoken',
            name='methods',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=8), blank=True, default=list, size=None),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='prefixes',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=512), blank=True, default=list, size=None),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='previous_digest',
            field=models.CharField(max_length=64, null=True, unique=True),
        ),
        migrations.AddField(
            model_name='apitoken',
            name='previous_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddConstraint(
            model_name='apitoken',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('previous_digest', None), ('previous_until', None)), models.Q(('previous_digest__isnull', False), ('previous_until__isnull', False)), _connector='OR'), name='api_token_previous'),
        ),
        migrations.AddConstraint(
            model_name='namespacegrant',
            constraint=models.CheckConstraint(condition=models.Q(('prefix', ''), ('prefix__regex', '^[A-Za-z][A-Za-z0-9+.-]*:(.*/|.*:)?$'), _connector='OR'), name='namespace_grant_prefix'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.UniqueConstraint(fields=('principal', 'role'), name='role_assignment_once'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.CheckConstraint(condition=models.Q(('role__in', ['archive-operator', 'file-sync-operator', 'site-operator', 'auditor'])), name='role_assignment_role'),
        ),
        migrations.RunSQL(TELL, SILENT),
    ]

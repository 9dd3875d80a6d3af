"""The tables of the audit, and the triggers that keep what is in them."""

import datamodel.models.fields
import django.contrib.postgres.indexes
from django.db import migrations, models


# After a restore transaction ids may start anew, and what is new must still come after what was sealed: `shift` is added.
STAMP = """
CREATE TABLE audit_shift (shift bigint NOT NULL);
INSERT INTO audit_shift VALUES (0);
CREATE FUNCTION stamp_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.txid := pg_current_xact_id()::text::bigint + coalesce((SELECT shift FROM audit_shift), 0);
    NEW.at := inventory_now();
    RETURN NEW;
END $$;
CREATE TRIGGER audit_entry_stamp BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION stamp_audit();
"""
UNSTAMP = """
DROP TRIGGER audit_entry_stamp ON audit_entry; DROP FUNCTION stamp_audit(); DROP TABLE audit_shift;
"""

# What is archived may go, if the transaction says that archiving is what it does (`archiving.py`); nothing else ever.
KEEP = """
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'the audit is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE FUNCTION keep_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM gone) AND (coalesce(current_setting('inventory.audit_archiving', true), '') <> 'on' OR EXISTS (
        SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM audit_archive a WHERE (a.to_txid, a.to_id) >= (g.txid, g.id))))
    THEN
        RAISE EXCEPTION 'the audit is append-only: only entries whose archive file is recorded go, by manage.py audit archive'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION keep_audit_seals() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM gone) AND (coalesce(current_setting('inventory.audit_archiving', true), '') <> 'on' OR EXISTS (
        SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM audit_archive a WHERE a.to_seal >= g.number)))
    THEN
        RAISE EXCEPTION 'the audit is append-only: only seals whose archive file is recorded go, by manage.py audit archive'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_entry_gone AFTER DELETE ON audit_entry REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_entries();
CREATE TRIGGER audit_seal_gone AFTER DELETE ON audit_seal REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_seals();
CREATE TRIGGER audit_head_gone BEFORE DELETE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_archive_gone BEFORE DELETE ON audit_archive FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
"""
TABLES = ("audit_entry", "audit_seal", "audit_head", "audit_archive")
KEEP += "".join(
    f"CREATE TRIGGER {table}_kept BEFORE UPDATE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();"
    for table in TABLES
)
LET_GO = "".join(
    f"DROP TRIGGER {table}_kept ON {table}; DROP TRIGGER {table}_gone ON {table};" for table in TABLES
) + "DROP FUNCTION keep_audit_seals(); DROP FUNCTION keep_audit_entries(); DROP FUNCTION keep_audit();"

TELL = """
CREATE TRIGGER audit_read_rule_told AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON audit_read_rule
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('datamodel', '0011_access'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditArchive',
            fields=[
                ('to_seal', models.BigIntegerField(primary_key=True, serialize=False)),
                ('from_seal', models.BigIntegerField()),
                ('to_txid', models.BigIntegerField()),
                ('to_id', models.BigIntegerField()),
                ('digest', models.BinaryField()),
                ('name', models.CharField(max_length=255)),
                ('sha256', models.CharField(max_length=64)),
                ('entries', models.BigIntegerField()),
                ('at', datamodel.models.fields.MillisField()),
            ],
            options={
                'db_table': 'audit_archive',
            },
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('number', models.BigIntegerField(primary_key=True, serialize=False)),
                ('at', datamodel.models.fields.MillisField()),
                ('to_txid', models.BigIntegerField()),
                ('to_id', models.BigIntegerField()),
                ('entries', models.IntegerField()),
                ('previous', models.BinaryField()),
                ('digest', models.BinaryField()),
                ('links', models.BinaryField()),
            ],
            options={
                'db_table': 'audit_seal',
            },
        ),
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('txid', models.BigIntegerField()),
                ('at', datamodel.models.fields.MillisField()),
                ('who', models.CharField(max_length=255)),
                ('method', models.CharField(max_length=32)),
                ('address', models.CharField(max_length=64)),
                ('action', models.CharField(max_length=32)),
                ('subject', datamodel.models.fields.UriField(max_length=600)),
                ('outcome', models.CharField(max_length=8)),
                ('reason', models.CharField(max_length=500)),
                ('request_id', models.CharField(max_length=64)),
                ('count', models.BigIntegerField(default=1)),
                ('details', models.JSONField(default=dict)),
            ],
            options={
                'verbose_name': 'audit entry',
                'verbose_name_plural': 'audit entries',
                'db_table': 'audit_entry',
                'indexes': [models.Index(fields=['txid', 'id'], name='audit_entry_order'), models.Index(fields=['subject', 'id'], name='audit_entry_subject'), models.Index(fields=['who', 'id'], name='audit_entry_who'), models.Index(condition=models.Q(('action__in', ['put', 'read']), _negated=True), fields=['action', 'id'], name='audit_entry_rare'), models.Index(condition=models.Q(('outcome', 'done'), _negated=True), fields=['outcome', 'id'], name='audit_entry_not_done'), django.contrib.postgres.indexes.BrinIndex(autosummarize=True, fields=['at'], name='audit_entry_at', pages_per_range=32)],
            },
        ),
        migrations.CreateModel(
            name='AuditHead',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('seal', models.BigIntegerField()),
                ('at', datamodel.models.fields.MillisField()),
                ('key_id', models.CharField(max_length=64)),
                ('public_key', models.BinaryField()),
                ('statement', models.TextField()),
            ],
            options={
                'db_table': 'audit_head',
                'indexes': [models.Index(fields=['seal'], name='audit_head_seal')],
            },
        ),
        migrations.CreateModel(
            name='AuditReadRule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('namespace', datamodel.models.fields.UriField(max_length=512)),
                ('percent', models.PositiveSmallIntegerField(help_text='so many of 100 reads, by chance; 100: every one, 0: none')),
                ('note', models.CharField(blank=True, default='', max_length=200)),
            ],
            options={
                'verbose_name': 'audit read rule',
                'db_table': 'audit_read_rule',
                'ordering': ('namespace',),
                'constraints': [models.UniqueConstraint(fields=('namespace',), name='audit_read_rule_namespace'), models.CheckConstraint(condition=models.Q(('namespace__regex', '^[A-Za-z].*[:/]$'), ('percent__lte', 100)), name='audit_read_rule_sound')],
            },
        ),
        migrations.RunSQL(STAMP, UNSTAMP),
        migrations.RunSQL(KEEP, LET_GO),
        migrations.RunSQL(TELL, "DROP TRIGGER audit_read_rule_told ON audit_read_rule;"),
    ]

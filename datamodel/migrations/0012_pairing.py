"""Pairing of inventories by one-time codes; and every change of whom we trust is told at once."""

import uuid
from django.db import migrations, models


# Rows of remotes are written with every harvest: only what decides about trust, or where a site is, is news.
TELL = """
CREATE TRIGGER remote_inventory_told AFTER INSERT OR DELETE ON remote_inventory
    FOR EACH ROW EXECUTE FUNCTION tell_access();
CREATE TRIGGER remote_inventory_changed_told AFTER UPDATE ON remote_inventory FOR EACH ROW
    WHEN ((OLD.name, OLD.role, OLD.url, OLD.enabled, OLD.inventory_id, OLD.site_id, OLD.paired_at, OLD.revoked_at)
        IS DISTINCT FROM
        (NEW.name, NEW.role, NEW.url, NEW.enabled, NEW.inventory_id, NEW.site_id, NEW.paired_at, NEW.revoked_at))
    EXECUTE FUNCTION tell_access();
CREATE TRIGGER trusted_key_told AFTER INSERT OR DELETE ON trusted_key
    FOR EACH ROW EXECUTE FUNCTION tell_access();
CREATE TRIGGER trusted_key_changed_told AFTER UPDATE ON trusted_key FOR EACH ROW
    WHEN ((OLD.remote_id, OLD.name, OLD.public_key) IS DISTINCT FROM (NEW.remote_id, NEW.name, NEW.public_key))
    EXECUTE FUNCTION tell_access();
CREATE TRIGGER remote_inventory_emptied_told AFTER TRUNCATE ON remote_inventory
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER trusted_key_emptied_told AFTER TRUNCATE ON trusted_key
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
"""
SILENT = """
DROP TRIGGER trusted_key_emptied_told ON trusted_key;
DROP TRIGGER remote_inventory_emptied_told ON remote_inventory;
DROP TRIGGER trusted_key_changed_told ON trusted_key;
DROP TRIGGER trusted_key_told ON trusted_key;
DROP TRIGGER remote_inventory_changed_told ON remote_inventory;
DROP TRIGGER remote_inventory_told ON remote_inventory;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('datamodel', '0011_access'),
    ]

    operations = [
        migrations.CreateModel(
            name='PairingInvitation',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64)),
                ('role', models.CharField(choices=[('site', 'Site'), ('global', 'Global')], max_length=6)),
                ('proof_key', models.BinaryField()),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField()),
                ('attempts', models.IntegerField(default=0)),
                ('accepted_by', models.UUIDField(null=True)),
                ('accepted_at', models.DateTimeField(null=True)),
                ('voided_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'pairing_invitation',
            },
        ),
        migrations.AddField(
            model_name='remoteinventory',
            name='paired_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='remoteinventory',
            name='revoked_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddConstraint(
            model_name='remoteinventory',
            constraint=models.CheckConstraint(condition=models.Q(('paired_at__isnull', True), ('inventory_id__isnull', False), _connector='OR'), name='remote_inventory_paired_known'),
        ),
        migrations.AddConstraint(
            model_name='remoteinventory',
            constraint=models.CheckConstraint(condition=models.Q(('revoked_at__isnull', True), models.Q(('enabled', False), ('paired_at__isnull', True)), _connector='OR'), name='remote_inventory_revoked_off'),
        ),
        migrations.AddConstraint(
            model_name='remoteinventory',
            constraint=models.UniqueConstraint(condition=models.Q(('paired_at__isnull', False)), fields=('inventory_id',), name='remote_inventory_paired_once'),
        ),
        migrations.AddIndex(
            model_name='pairinginvitation',
            index=models.Index(fields=['name'], name='pairing_invitation_name'),
        ),
        migrations.AddConstraint(
            model_name='pairinginvitation',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('accepted_at', None), ('accepted_by', None)), models.Q(('accepted_at__isnull', False), ('accepted_by__isnull', False)), _connector='OR'), name='pairing_invitation_accepted'),
        ),
        migrations.RunSQL(TELL, SILENT),
    ]

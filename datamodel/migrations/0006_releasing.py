"""The mark of a copy that its site may drop, and of news that it did so on purpose.

Columns are added without a look at the rows; the index does not block writers.
"""

from django.db import migrations, models

import datamodel.models.fields

_COLUMNS = """
ALTER TABLE site_location ADD COLUMN IF NOT EXISTS releasing_at timestamptz(3), ADD COLUMN IF NOT EXISTS release_id uuid,
    ADD COLUMN IF NOT EXISTS release_stored_at timestamptz(3)
"""
_DROPPED = """
ALTER TABLE deleted_storage_location_event ADD COLUMN IF NOT EXISTS is_dropped boolean NOT NULL DEFAULT false
"""
_NOT_DROPPED = "ALTER TABLE deleted_storage_location_event DROP COLUMN is_dropped"
_NO_COLUMNS = "ALTER TABLE site_location DROP COLUMN releasing_at, DROP COLUMN release_id, DROP COLUMN release_stored_at"
_WHOLE = """
ALTER TABLE site_location DROP CONSTRAINT IF EXISTS site_location_release_whole,
    ADD CONSTRAINT site_location_release_whole CHECK (num_nulls(releasing_at, release_id, release_stored_at) IN (0, 3)) NOT VALID
"""
_INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS site_location_releasing ON site_location (site_id, releasing_at)
WHERE releasing_at IS NOT NULL
"""


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('datamodel', '0005_digest')]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(_COLUMNS, _NO_COLUMNS),
                migrations.RunSQL(_DROPPED, _NOT_DROPPED),
                migrations.RunSQL(_WHOLE, 'ALTER TABLE site_location DROP CONSTRAINT IF EXISTS site_location_release_whole'),
                migrations.RunSQL('ALTER TABLE site_location VALIDATE CONSTRAINT site_location_release_whole', migrations.RunSQL.noop),
                migrations.RunSQL(_INDEX, 'DROP INDEX CONCURRENTLY IF EXISTS site_location_releasing'),
            ],
            state_operations=[
                migrations.AddField('sitelocation', 'releasing_at', datamodel.models.fields.MillisField(null=True)),
                migrations.AddField('sitelocation', 'release_id', models.UUIDField(null=True)),
                migrations.AddField('sitelocation', 'release_stored_at', datamodel.models.fields.MillisField(null=True)),
                migrations.AddField(
                    'deletedstoragelocationevent', 'is_dropped', models.BooleanField(db_default=False, default=False)
                ),
                migrations.AddIndex(
                    'sitelocation',
                    models.Index(
                        condition=models.Q(('releasing_at__isnull', False)),
                        fields=['site', 'releasing_at'],
                        name='site_location_releasing',
                    ),
                ),
                migrations.AddConstraint(
                    'sitelocation',
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(('release_id__isnull', True), ('release_stored_at__isnull', True), ('releasing_at__isnull', True)),
                            models.Q(('release_id__isnull', False), ('release_stored_at__isnull', False), ('releasing_at__isnull', False)),
                            _connector='OR',
                        ),
                        name='site_location_release_whole',
                    ),
                ),
            ],
        ),
    ]

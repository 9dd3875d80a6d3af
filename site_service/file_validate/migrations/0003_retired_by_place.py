"""Whose bytes a retired artifact keeps is found by their place."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("file_validate", "0002_guards")]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS retired_by_place ON retired_artifact (storage_bucket, storage_id) "
            "WHERE state IN ('retained', 'removing')",
            "DROP INDEX CONCURRENTLY IF EXISTS retired_by_place",
        )
    ]

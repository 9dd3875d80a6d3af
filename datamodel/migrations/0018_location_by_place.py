"""A bucket's places with the artifact at each, from one index: a comparison with the store looks at no row of `storage_location`.

The index that it replaces goes only when the new one is whole. Neither blocks writers.
"""

from django.db import migrations, models

# What a build that was killed has left: it would be taken for the index, and keeps nothing unique.
_CLEAR = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('storage_location_by_place') AND NOT indisvalid) THEN
        DROP INDEX storage_location_by_place;
    END IF;
END $$
"""
_BUILD = """
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS storage_location_by_place ON storage_location (storage_bucket, storage_id) INCLUDE (artifact_id)
"""
_DROP = "DROP INDEX CONCURRENTLY IF EXISTS storage_location_by_place"
_BEFORE = """
ALTER TABLE storage_location ADD CONSTRAINT storage_location_one_per_object UNIQUE (storage_bucket, storage_id)
"""
_NOT_BEFORE = "ALTER TABLE storage_location DROP CONSTRAINT IF EXISTS storage_location_one_per_object"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("datamodel", "0017_harvested_page")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(_CLEAR, migrations.RunSQL.noop),
                migrations.RunSQL(_BUILD, _DROP),
                migrations.RunSQL(_NOT_BEFORE, _BEFORE),
            ],
            state_operations=[
                migrations.RemoveConstraint("storagelocation", "storage_location_one_per_object"),
                migrations.AddConstraint(
                    "storagelocation",
                    models.UniqueConstraint(
                        fields=("storage_bucket", "storage_id"),
                        include=("artifact",),
                        name="storage_location_by_place",
                    ),
                ),
            ],
        ),
    ]

"""The record of a place in the store stays when its location goes, and loses its artifact: the database sees to it."""

from django.db import migrations

_ADD = """
    ALTER TABLE copy_verification ADD CONSTRAINT copy_verification_of_location FOREIGN KEY (artifact_id)
        REFERENCES storage_location (artifact_id) ON DELETE SET NULL ON UPDATE CASCADE
"""
_DROP = "ALTER TABLE copy_verification DROP CONSTRAINT copy_verification_of_location"


class Migration(migrations.Migration):
    dependencies = [("scrub", "0001_tables"), ("datamodel", "0002_feed")]

    operations = [migrations.RunSQL(_ADD, _DROP)]

"""The queue is judged under another policy a page at a time, and goes on where it was."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("file_sync", "0001_queue")]

    operations = [migrations.AddField(model_name="syncscan", name="judged_id", field=models.UUIDField(null=True))]

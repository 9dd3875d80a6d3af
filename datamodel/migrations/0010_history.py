"""When an artifact ended, by the clock that all inventories share: the moment of its DeletedArtifactEvent."""

import datamodel.models.fields
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('datamodel', "0009_restoration"),
    ]

    operations = [
        migrations.AddField(
            model_name='retiredartifact',
            name='ended_at',
            field=datamodel.models.fields.MillisField(null=True),
        ),
        AddIndexConcurrently(
            model_name='retiredartifact',
            index=models.Index(
                condition=models.Q(('state__in', ['purged', 'restored'])), fields=['died_at'], name='retired_history'
            ),
        ),
    ]

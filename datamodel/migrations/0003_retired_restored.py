"""Which bytes have lately found a use again: their facts follow."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('datamodel', '0002_feed'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='retiredartifact',
            index=models.Index(condition=models.Q(('state', 'restored')), fields=['state_at'], name='retired_restored'),
        ),
    ]

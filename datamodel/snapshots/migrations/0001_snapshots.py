"""Tables of snapshots."""

import datamodel.models.fields
import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('datamodel', '0010_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='PinSource',
            fields=[
                ('remote', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='pin_source', serialize=False, to='datamodel.remoteinventory')),
                ('url', models.CharField(max_length=512)),
                ('heard_until', datamodel.models.fields.MillisField()),
                ('heard_at', datamodel.models.fields.MillisField()),
            ],
            options={
                'db_table': 'snapshot_pin_source',
            },
        ),
        migrations.CreateModel(
            name='SnapshotMark',
            fields=[
                ('id', models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('history_begins_at', datamodel.models.fields.MillisField(null=True)),
                ('told_until', datamodel.models.fields.MillisField(null=True)),
                ('held_artifacts', models.BigIntegerField(default=0)),
                ('held_size', models.BigIntegerField(default=0)),
            ],
            options={
                'db_table': 'snapshot_mark',
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='snapshot_mark_one_row')],
            },
        ),
        migrations.CreateModel(
            name='SnapshotSchedule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='its snapshots are called NAME-2026-01-31T12Z', max_length=64, unique=True)),
                ('namespace', datamodel.models.fields.UriField(max_length=512)),
                ('hourly', models.PositiveIntegerField(default=0, help_text='of so many hours one each; 0: none')),
                ('daily', models.PositiveIntegerField(default=0, help_text='of so many days (UTC) one each')),
                ('monthly', models.PositiveIntegerField(default=0, help_text='of so many months one each')),
                ('yearly', models.PositiveIntegerField(default=0, help_text='of so many years one each')),
                ('enabled', models.BooleanField(default=True, help_text='off: takes none, and removes none')),
                ('last_period', models.CharField(default='', editable=False, max_length=20)),
            ],
            options={
                'verbose_name': 'snapshot schedule',
                'db_table': 'snapshot_schedule',
                'ordering': ('name',),
                'constraints': [models.CheckConstraint(condition=models.Q(('namespace__regex', '^[A-Za-z].*[:/]$')), name='snapshot_schedule_namespace_form'), models.CheckConstraint(condition=models.Q(('hourly__gt', 0), ('daily__gt', 0), ('monthly__gt', 0), ('yearly__gt', 0), _connector='OR'), name='snapshot_schedule_keeps_some')],
            },
        ),
        migrations.CreateModel(
            name='Snapshot',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('source', models.CharField(default='', max_length=64)),
                ('namespace', datamodel.models.fields.UriField(max_length=512)),
                ('moment', datamodel.models.fields.MillisField()),
                ('state', models.CharField(choices=[('pinning', 'pinning'), ('kept', 'kept'), ('released', 'released')], max_length=8)),
                ('digest', models.CharField(default='', max_length=32)),
                ('artifacts', models.BigIntegerField(default=0)),
                ('size', models.BigIntegerField(default=0)),
                ('tree', models.JSONField(default=dict)),
                ('is_orphan', models.BooleanField(default=False)),
                ('created_at', datamodel.models.fields.MillisField()),
                ('created_by', models.CharField(default='', max_length=200)),
                ('kept_at', datamodel.models.fields.MillisField(null=True)),
                ('schedule', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='snapshots', to='snapshots.snapshotschedule')),
            ],
            options={
                'db_table': 'snapshot',
                'ordering': ('-moment',),
            },
        ),
        migrations.CreateModel(
            name='SnapshotAcknowledgement',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.CharField(default='', max_length=100)),
                ('acknowledged_at', datamodel.models.fields.MillisField()),
                ('dropped_at', datamodel.models.fields.MillisField(null=True)),
                ('remote', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='acknowledged_snapshots', to='datamodel.remoteinventory')),
                ('snapshot', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='acknowledgements', to='snapshots.snapshot')),
            ],
            options={
                'db_table': 'snapshot_acknowledgement',
                'constraints': [models.UniqueConstraint(fields=('snapshot', 'remote'), name='snapshot_acknowledged_once')],
            },
        ),
        migrations.AddIndex(
            model_name='snapshot',
            index=models.Index(fields=['moment', 'id'], name='snapshot_by_moment'),
        ),
        migrations.AddConstraint(
            model_name='snapshot',
            constraint=models.UniqueConstraint(condition=models.Q(('source', ''), models.Q(('state', 'released'), _negated=True)), fields=('name',), name='snapshot_name'),
        ),
        migrations.AddConstraint(
            model_name='snapshot',
            constraint=models.CheckConstraint(condition=models.Q(('namespace__regex', '^[A-Za-z].*[:/]$')), name='snapshot_namespace_form'),
        ),
        migrations.AddConstraint(
            model_name='snapshot',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['pinning', 'kept', 'released'])), name='snapshot_state_known'),
        ),
        migrations.AddConstraint(
            model_name='snapshot',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'kept'), _negated=True), models.Q(('kept_at__isnull', False), models.Q(('digest', ''), _negated=True)), _connector='OR'), name='snapshot_kept_is_measured'),
        ),
    ]

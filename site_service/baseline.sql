-- applied account.0001_initial
-- applied account.0002_email_max_length
-- applied account.0003_alter_emailaddress_create_unique_verified_email
-- applied account.0004_alter_emailaddress_drop_unique_email
-- applied account.0005_emailaddress_idx_upper_email
-- applied account.0006_emailaddress_lower
-- applied account.0007_emailaddress_idx_email
-- applied account.0008_emailaddress_unique_primary_email_fixup
-- applied account.0009_emailaddress_unique_primary_email
-- applied admin.0001_initial
-- applied admin.0002_logentry_remove_auto_add
-- applied admin.0003_logentry_add_action_flag_choices
-- applied alarms.0001_alarms
-- applied audit.0001_audit
-- applied auth.0001_initial
-- applied auth.0002_alter_permission_name_max_length
-- applied auth.0003_alter_user_email_max_length
-- applied auth.0004_alter_user_username_opts
-- applied auth.0005_alter_user_last_login_null
-- applied auth.0006_require_contenttypes_0002
-- applied auth.0007_alter_validators_add_error_messages
-- applied auth.0008_alter_user_username_max_length
-- applied auth.0009_alter_user_last_name_max_length
-- applied auth.0010_alter_group_name_max_length
-- applied auth.0011_update_proxy_permissions
-- applied auth.0012_alter_user_first_name_max_length
-- applied contenttypes.0001_initial
-- applied contenttypes.0002_remove_content_type_name
-- applied datamodel.0001_model
-- applied datamodel.0002_feed
-- applied datamodel.0003_retired_restored
-- applied datamodel.0004_deletion_brake
-- applied datamodel.0005_digest
-- applied datamodel.0006_releasing
-- applied datamodel.0007_brake_rules
-- applied datamodel.0008_event_expiry
-- applied datamodel.0009_restoration
-- applied datamodel.0010_history
-- applied datamodel.0011_access
-- applied datamodel.0012_pairing
-- applied datamodel.0013_checksums_inline
-- applied datamodel.0014_site_location_one_index
-- applied datamodel.0015_digest_by_bucket
-- applied datamodel.0016_digest_by_id
-- applied datamodel.0017_harvested_page
-- applied datamodel.0018_location_by_place
-- applied datamodel.0019_locations_without_foreign_key
-- applied datamodel.0020_stamped_rows
-- applied file_sync.0001_queue
-- applied file_sync.0002_judged_page_by_page
-- applied file_validate.0001_initial
-- applied file_validate.0002_guards
-- applied file_validate.0003_retired_by_place
-- applied files.0001_initial
-- applied policy.0001_rules
-- applied reconcile.0001_reports
-- applied retention.0001_rules
-- applied retention.0002_releases
-- applied scrub.0001_tables
-- applied scrub.0002_bytes_outlive_their_location
-- applied sessions.0001_initial
-- applied snapshots.0001_snapshots
-- applied socialaccount.0001_initial
-- applied socialaccount.0002_token_max_lengths
-- applied socialaccount.0003_extra_data_default_dict
-- applied socialaccount.0004_app_provider_id_settings
-- applied socialaccount.0005_socialtoken_nullable_app
-- applied socialaccount.0006_alter_socialaccount_extra_data
CREATE FUNCTION artifact_meta_checksum(id uuid, uri text, uri_bucket text, content_checksum text, content_last_modified timestamp with time zone, content_length bigint, content_type text, content_encoding text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT 'md5:' || md5(uuid_send(id) || java_trim(content_checksum) || java_trim(content_encoding)
    || java_millis(content_last_modified) || int8send(content_length) || java_trim(content_type)
    || java_trim(uri) || java_trim(uri_bucket)) $$;
CREATE FUNCTION digest_word(meta_checksum text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT ('x' || left(md5(meta_checksum), 16))::bit(64)::bigint $$;
CREATE FUNCTION event_meta_checksum(id uuid, uri text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT 'md5:' || md5(uuid_send(id) || java_trim(uri)) $$;
CREATE FUNCTION inventory_now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$ SELECT date_trunc('milliseconds', clock_timestamp()) $$;
CREATE FUNCTION java_millis(value timestamp with time zone) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT int8send((extract(epoch FROM value) * 1000)::bigint) $$;
CREATE FUNCTION java_trim(value text) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT convert_to(btrim(coalesce(value, ''), E'\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f'
    '\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20'), 'UTF8') $$;
CREATE FUNCTION keep_audit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
    RAISE EXCEPTION 'the audit is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE FUNCTION keep_audit_entries() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
    IF EXISTS (SELECT FROM gone) AND (coalesce(current_setting('inventory.audit_archiving', true), '') <> 'on' OR EXISTS (
        SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM audit_archive a WHERE (a.to_txid, a.to_id) >= (g.txid, g.id))))
    THEN
        RAISE EXCEPTION 'the audit is append-only: only entries whose archive file is recorded go, by manage.py audit archive'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION keep_audit_seals() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
    IF EXISTS (SELECT FROM gone) AND (coalesce(current_setting('inventory.audit_archiving', true), '') <> 'on' OR EXISTS (
        SELECT FROM gone g WHERE NOT EXISTS (SELECT FROM audit_archive a WHERE a.to_seal >= g.number)))
    THEN
        RAISE EXCEPTION 'the audit is append-only: only seals whose archive file is recorded go, by manage.py audit archive'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION keep_storage_site() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
    IF EXISTS (SELECT FROM site_location WHERE site_id = OLD.id) THEN
        RAISE foreign_key_violation USING MESSAGE = format('storage_site %s is still named by site_location', OLD.id),
            TABLE = 'site_location';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION refuse_removed_object() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE found_state text;
BEGIN
    SELECT q.state INTO found_state FROM quarantined_object q
    WHERE q.storage_bucket = NEW.storage_bucket AND q.storage_id = NEW.storage_id FOR SHARE;
    IF found_state IN ('removing', 'purged') THEN
        RAISE unique_violation USING MESSAGE = 'the object ' || NEW.storage_id || ' was removed from quarantine';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION site_meta_checksum(id uuid, allow_read boolean, allow_write boolean, name text, resource_id text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT 'md5:' || md5(uuid_send(id) || boolsend(allow_read) || boolsend(allow_write)
    || java_trim(name) || java_trim(resource_id)) $$;
CREATE FUNCTION stamp_audit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
    NEW.txid := pg_current_xact_id()::text::bigint + coalesce((SELECT shift FROM audit_shift), 0);
    NEW.at := inventory_now();
    RETURN NEW;
END $$;
CREATE FUNCTION stamp_txid() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN NEW.txid := pg_current_xact_id()::text::bigint; RETURN NEW; END $$;
CREATE FUNCTION tell_access() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_notify('inventory_access', ''); RETURN NULL; END $$;
CREATE TABLE account_emailaddress (
    id integer NOT NULL,
    email character varying(254) NOT NULL,
    verified boolean NOT NULL,
    "primary" boolean NOT NULL,
    user_id integer NOT NULL
);
ALTER TABLE account_emailaddress ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME account_emailaddress_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE account_emailconfirmation (
    id integer NOT NULL,
    created timestamp with time zone NOT NULL,
    sent timestamp with time zone,
    key character varying(64) NOT NULL,
    email_address_id integer NOT NULL
);
ALTER TABLE account_emailconfirmation ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME account_emailconfirmation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE alarm (
    id bigint NOT NULL,
    kind character varying(32) NOT NULL,
    subject character varying(512) NOT NULL COLLATE pg_catalog."C",
    text text NOT NULL,
    count bigint NOT NULL,
    raised_at timestamp(3) with time zone NOT NULL,
    last_at timestamp(3) with time zone NOT NULL,
    round integer NOT NULL,
    told_at timestamp(3) with time zone NOT NULL,
    acknowledged_at timestamp(3) with time zone,
    acknowledged_by character varying(150) NOT NULL,
    cleared_at timestamp(3) with time zone,
    cleared_by character varying(150) NOT NULL
);
CREATE TABLE alarm_delivery (
    id bigint NOT NULL,
    channel character varying(64) NOT NULL,
    round integer NOT NULL,
    attempts integer NOT NULL,
    next_try_at timestamp(3) with time zone NOT NULL,
    delivered_at timestamp(3) with time zone,
    last_error character varying(500) NOT NULL,
    alarm_id bigint NOT NULL
);
ALTER TABLE alarm_delivery ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME alarm_delivery_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE alarm ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME alarm_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE api_token (
    id uuid NOT NULL,
    name character varying(64) NOT NULL,
    digest character varying(64) NOT NULL,
    grants character varying(16)[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    methods character varying(8)[] NOT NULL,
    prefixes character varying(512)[] NOT NULL,
    previous_digest character varying(64),
    previous_until timestamp with time zone,
    CONSTRAINT api_token_previous CHECK ((((previous_digest IS NULL) AND (previous_until IS NULL)) OR ((previous_digest IS NOT NULL) AND (previous_until IS NOT NULL))))
);
CREATE TABLE artifact (
    id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    uri_bucket character varying(5) NOT NULL COLLATE pg_catalog."C",
    content_checksum character varying(136) NOT NULL,
    content_last_modified timestamp(3) with time zone NOT NULL,
    content_length bigint NOT NULL,
    content_type character varying(128),
    content_encoding character varying(128),
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL,
    content_sha256 bytea,
    meta_modified_at timestamp(3) with time zone NOT NULL,
    reaffirmed_at timestamp(3) with time zone,
    txid bigint NOT NULL,
    CONSTRAINT artifact_bucket_form CHECK (((uri_bucket)::text ~ '^[0-9a-f]{5}$'::text)),
    CONSTRAINT artifact_length_not_negative CHECK ((content_length >= 0)),
    CONSTRAINT artifact_sha256_form CHECK (((content_sha256 IS NULL) OR (length(content_sha256) = 32))),
    CONSTRAINT artifact_uri_form CHECK (((uri)::text ~ '^[A-Za-z][A-Za-z0-9+.-]*:([!-.0-~][!-~]*)?[!-.0-9;-~]$'::text))
);
CREATE TABLE audit_archive (
    to_seal bigint NOT NULL,
    from_seal bigint NOT NULL,
    to_txid bigint NOT NULL,
    to_id bigint NOT NULL,
    digest bytea NOT NULL,
    name character varying(255) NOT NULL,
    sha256 character varying(64) NOT NULL,
    entries bigint NOT NULL,
    at timestamp(3) with time zone NOT NULL
);
CREATE TABLE audit_entry (
    id bigint NOT NULL,
    txid bigint NOT NULL,
    at timestamp(3) with time zone NOT NULL,
    who character varying(255) NOT NULL,
    method character varying(32) NOT NULL,
    address character varying(64) NOT NULL,
    action character varying(32) NOT NULL,
    subject character varying(600) NOT NULL COLLATE pg_catalog."C",
    outcome character varying(8) NOT NULL,
    reason character varying(500) NOT NULL,
    request_id character varying(64) NOT NULL,
    count bigint NOT NULL,
    details jsonb NOT NULL
);
ALTER TABLE audit_entry ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME audit_entry_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE audit_head (
    id bigint NOT NULL,
    seal bigint NOT NULL,
    at timestamp(3) with time zone NOT NULL,
    key_id character varying(64) NOT NULL,
    public_key bytea NOT NULL,
    statement text NOT NULL
);
ALTER TABLE audit_head ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME audit_head_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE audit_read_rule (
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    percent smallint NOT NULL,
    note character varying(200) NOT NULL,
    CONSTRAINT audit_read_rule_percent_check CHECK ((percent >= 0)),
    CONSTRAINT audit_read_rule_sound CHECK ((((namespace)::text ~ '^[A-Za-z].*[:/]$'::text) AND (percent <= 100)))
);
ALTER TABLE audit_read_rule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME audit_read_rule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE audit_seal (
    number bigint NOT NULL,
    at timestamp(3) with time zone NOT NULL,
    to_txid bigint NOT NULL,
    to_id bigint NOT NULL,
    entries integer NOT NULL,
    previous bytea NOT NULL,
    digest bytea NOT NULL,
    links bytea NOT NULL
);
CREATE TABLE audit_shift (
    shift bigint NOT NULL
);
CREATE TABLE auth_group (
    id integer NOT NULL,
    name character varying(150) NOT NULL
);
ALTER TABLE auth_group ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_group_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE auth_group_permissions (
    id bigint NOT NULL,
    group_id integer NOT NULL,
    permission_id integer NOT NULL
);
ALTER TABLE auth_group_permissions ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_group_permissions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE auth_permission (
    id integer NOT NULL,
    name character varying(255) NOT NULL,
    content_type_id integer NOT NULL,
    codename character varying(100) NOT NULL
);
ALTER TABLE auth_permission ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_permission_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE auth_user (
    id integer NOT NULL,
    password character varying(128) NOT NULL,
    last_login timestamp with time zone,
    is_superuser boolean NOT NULL,
    username character varying(150) NOT NULL,
    first_name character varying(150) NOT NULL,
    last_name character varying(150) NOT NULL,
    email character varying(254) NOT NULL,
    is_staff boolean NOT NULL,
    is_active boolean NOT NULL,
    date_joined timestamp with time zone NOT NULL
);
CREATE TABLE auth_user_groups (
    id bigint NOT NULL,
    user_id integer NOT NULL,
    group_id integer NOT NULL
);
ALTER TABLE auth_user_groups ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_user_groups_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE auth_user ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_user_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE auth_user_user_permissions (
    id bigint NOT NULL,
    user_id integer NOT NULL,
    permission_id integer NOT NULL
);
ALTER TABLE auth_user_user_permissions ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME auth_user_user_permissions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE brake_rule (
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    most_count bigint NOT NULL,
    most_percent smallint NOT NULL,
    note character varying(200) NOT NULL,
    CONSTRAINT brake_rule_most_percent_check CHECK ((most_percent >= 0)),
    CONSTRAINT brake_rule_sound CHECK (((most_count >= 0) AND (most_percent <= 100) AND ((namespace)::text ~ '^[A-Za-z].*[:/]$'::text)))
);
ALTER TABLE brake_rule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME brake_rule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE copy_release (
    id uuid NOT NULL,
    artifact_id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    content_checksum character varying(136) NOT NULL,
    content_length bigint NOT NULL,
    state character varying(9) NOT NULL,
    reason character varying(16) NOT NULL,
    detail character varying(300) NOT NULL,
    tries integer NOT NULL,
    next_try_at timestamp(3) with time zone NOT NULL,
    state_at timestamp(3) with time zone NOT NULL,
    location_id uuid,
    run_id uuid NOT NULL,
    CONSTRAINT copy_release_refused_why CHECK (((NOT ((state)::text = ANY ((ARRAY['returning'::character varying, 'refused'::character varying])::text[]))) OR (NOT ((reason)::text = ''::text)))),
    CONSTRAINT copy_release_state_known CHECK (((state)::text = ANY ((ARRAY['asked'::character varying, 'granted'::character varying, 'returning'::character varying, 'dropped'::character varying, 'refused'::character varying, 'gone'::character varying])::text[])))
);
CREATE TABLE copy_release_outcome (
    outcome character varying(16) NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL
);
CREATE TABLE copy_verification (
    id bigint NOT NULL,
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    content_length bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    verified_at timestamp(3) with time zone NOT NULL,
    next_at timestamp(3) with time zone,
    result character varying(10) NOT NULL,
    failures integer NOT NULL,
    artifact_id uuid
);
ALTER TABLE copy_verification ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME copy_verification_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE damaged_copy (
    id uuid NOT NULL,
    artifact_id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    content_length bigint NOT NULL,
    content_checksum character varying(136) NOT NULL,
    finding character varying(8) NOT NULL,
    detail text NOT NULL,
    found_by character varying(16) NOT NULL,
    found_at timestamp(3) with time zone NOT NULL,
    last_verified_at timestamp(3) with time zone NOT NULL,
    state character varying(8) NOT NULL,
    state_at timestamp(3) with time zone NOT NULL,
    unrepairable_since timestamp(3) with time zone,
    repair_reason character varying(32) NOT NULL,
    repair_detail text NOT NULL,
    checked_at timestamp(3) with time zone NOT NULL,
    CONSTRAINT damaged_copy_state_known CHECK (((state)::text = ANY ((ARRAY['damaged'::character varying, 'repaired'::character varying, 'gone'::character varying, 'released'::character varying])::text[]))),
    CONSTRAINT damaged_copy_unrepairable_is_damaged CHECK (((unrepairable_since IS NULL) OR ((state)::text = 'damaged'::text)))
);
CREATE TABLE deleted_artifact_event (
    id uuid NOT NULL,
    uri character varying(512) COLLATE pg_catalog."C",
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL,
    txid bigint NOT NULL,
    deleted_at timestamp(3) with time zone NOT NULL
);
CREATE TABLE deleted_storage_location_event (
    id uuid NOT NULL,
    uri character varying(512) COLLATE pg_catalog."C",
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL,
    txid bigint NOT NULL,
    is_dropped boolean DEFAULT false NOT NULL
);
CREATE TABLE deletion_brake (
    source character varying(100) NOT NULL,
    day date NOT NULL,
    removed bigint NOT NULL,
    engaged_at timestamp(3) with time zone,
    reason character varying(500) NOT NULL,
    released_until timestamp(3) with time zone,
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT deletion_brake_removed CHECK ((removed >= 0))
);
ALTER TABLE deletion_brake ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME deletion_brake_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE django_admin_log (
    id integer NOT NULL,
    action_time timestamp with time zone NOT NULL,
    object_id text,
    object_repr character varying(200) NOT NULL,
    action_flag smallint NOT NULL,
    change_message text NOT NULL,
    content_type_id integer,
    user_id integer NOT NULL,
    CONSTRAINT django_admin_log_action_flag_check CHECK ((action_flag >= 0))
);
ALTER TABLE django_admin_log ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME django_admin_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE django_content_type (
    id integer NOT NULL,
    app_label character varying(100) NOT NULL,
    model character varying(100) NOT NULL
);
ALTER TABLE django_content_type ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME django_content_type_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE django_session (
    session_key character varying(40) NOT NULL,
    session_data text NOT NULL,
    expire_date timestamp with time zone NOT NULL
);
CREATE TABLE feed_reader (
    id bigint NOT NULL,
    caller character varying(64) NOT NULL,
    inventory_id uuid NOT NULL,
    epoch character varying(16) NOT NULL,
    txid bigint NOT NULL,
    asked_at timestamp(3) with time zone NOT NULL,
    retired_at timestamp(3) with time zone
);
ALTER TABLE feed_reader ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME feed_reader_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE harvest_conflict (
    id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    winner_id uuid NOT NULL,
    loser_id uuid NOT NULL,
    loser_checksum character varying(136) NOT NULL,
    loser_length bigint NOT NULL,
    loser_last_modified timestamp(3) with time zone NOT NULL,
    same_content boolean NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone,
    loser_site_id uuid
);
CREATE TABLE harvest_rejection (
    id uuid NOT NULL,
    stream character varying(64) NOT NULL,
    row_id uuid,
    "row" text NOT NULL,
    row_digest character varying(64) NOT NULL,
    reason character varying(200) NOT NULL,
    rejected_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone,
    remote_id bigint NOT NULL
);
CREATE TABLE harvest_state (
    id uuid NOT NULL,
    name character varying(64) NOT NULL,
    selector character varying(512) NOT NULL COLLATE pg_catalog."C",
    epoch character varying(64) NOT NULL,
    cur_txid bigint NOT NULL,
    cur_id uuid NOT NULL,
    cur_last_modified timestamp(3) with time zone,
    covers jsonb NOT NULL,
    rows bigint NOT NULL,
    is_complete boolean NOT NULL,
    updated_at timestamp with time zone,
    remote_id bigint NOT NULL
);
CREATE TABLE harvested_page (
    id bigint NOT NULL,
    txid bigint NOT NULL,
    epoch uuid NOT NULL,
    site_id uuid NOT NULL
);
ALTER TABLE harvested_page ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME harvested_page_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE inventory_identity (
    id smallint NOT NULL,
    inventory_id uuid NOT NULL,
    epoch uuid NOT NULL,
    system_identifier bigint NOT NULL,
    timeline integer NOT NULL,
    events_expired bigint NOT NULL,
    events_gone_at timestamp(3) with time zone,
    events_gone_txid bigint NOT NULL,
    CONSTRAINT inventory_identity_one_row CHECK ((id = 1))
);
CREATE TABLE namespace_grant (
    id bigint NOT NULL,
    prefix character varying(512) NOT NULL COLLATE pg_catalog."C",
    anonymous_read boolean NOT NULL,
    readers character varying(255)[] NOT NULL,
    writers character varying(255)[] NOT NULL,
    deleters character varying(255)[] NOT NULL,
    harvesters character varying(255)[] NOT NULL,
    replaces boolean NOT NULL,
    note character varying(200) NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    CONSTRAINT namespace_grant_prefix CHECK ((((prefix)::text = ''::text) OR ((prefix)::text ~ '^[A-Za-z][A-Za-z0-9+.-]*:(.*/|.*:)?$'::text)))
);
ALTER TABLE namespace_grant ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME namespace_grant_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE obsolete_storage_location (
    id uuid NOT NULL,
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL
);
CREATE TABLE pairing_invitation (
    id uuid NOT NULL,
    name character varying(64) NOT NULL,
    role character varying(6) NOT NULL,
    proof_key bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    attempts integer NOT NULL,
    accepted_by uuid,
    accepted_at timestamp with time zone,
    voided_at timestamp with time zone,
    CONSTRAINT pairing_invitation_accepted CHECK ((((accepted_at IS NULL) AND (accepted_by IS NULL)) OR ((accepted_at IS NOT NULL) AND (accepted_by IS NOT NULL))))
);
CREATE TABLE preauth_key_pair (
    id uuid NOT NULL,
    name character varying(32) NOT NULL,
    public_key bytea NOT NULL,
    private_key bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    active_from timestamp with time zone NOT NULL,
    expires_at timestamp with time zone
);
CREATE TABLE put_transaction (
    id character varying(128) NOT NULL,
    uri character varying(512) NOT NULL,
    total_length bigint,
    content_type character varying(128),
    content_encoding character varying(128),
    token_digest character varying(64),
    begun_at timestamp with time zone NOT NULL
);
CREATE TABLE quarantined_object (
    id uuid NOT NULL,
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    label character varying(32) NOT NULL,
    detail text NOT NULL,
    artifact_id uuid,
    uri character varying(512) COLLATE pg_catalog."C",
    content_checksum character varying(136),
    content_length bigint,
    content_type character varying(128),
    content_encoding character varying(128),
    written_at timestamp(3) with time zone,
    quarantined_at timestamp(3) with time zone NOT NULL,
    quarantined_by character varying(150) NOT NULL,
    state character varying(11) NOT NULL,
    state_at timestamp(3) with time zone NOT NULL,
    decided_by character varying(150) NOT NULL,
    reason character varying(200) NOT NULL,
    CONSTRAINT quarantined_state_known CHECK (((state)::text = ANY ((ARRAY['quarantined'::character varying, 'removing'::character varying, 'purged'::character varying, 'restored'::character varying])::text[])))
);
CREATE TABLE reconcile_difference (
    id bigint NOT NULL,
    artifact_id uuid NOT NULL,
    uri character varying(512) COLLATE pg_catalog."C",
    label character varying(32) NOT NULL,
    action character varying(64) NOT NULL,
    is_applied boolean NOT NULL,
    run_id uuid NOT NULL
);
ALTER TABLE reconcile_difference ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME reconcile_difference_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE reconcile_run (
    id uuid NOT NULL,
    mode character varying(6) NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    is_complete boolean NOT NULL,
    rows_here bigint NOT NULL,
    rows_there bigint NOT NULL,
    requests integer NOT NULL,
    traffic_bytes bigint NOT NULL,
    differences jsonb NOT NULL,
    applied jsonb NOT NULL,
    error text NOT NULL,
    remote_id bigint NOT NULL
);
CREATE TABLE remote_inventory (
    id bigint NOT NULL,
    name character varying(64) NOT NULL,
    role character varying(6) NOT NULL,
    url character varying(512) NOT NULL,
    token bytea NOT NULL,
    enabled boolean NOT NULL,
    inventory_id uuid,
    lease_holder uuid,
    lease_until timestamp with time zone,
    last_contact_at timestamp with time zone,
    last_error text NOT NULL,
    last_error_at timestamp with time zone,
    site_id uuid,
    paired_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT remote_inventory_lease_whole CHECK ((((lease_holder IS NULL) AND (lease_until IS NULL)) OR ((lease_holder IS NOT NULL) AND (lease_until IS NOT NULL)))),
    CONSTRAINT remote_inventory_paired_known CHECK (((paired_at IS NULL) OR (inventory_id IS NOT NULL))),
    CONSTRAINT remote_inventory_revoked_off CHECK (((revoked_at IS NULL) OR ((NOT enabled) AND (paired_at IS NULL))))
);
ALTER TABLE remote_inventory ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME remote_inventory_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE restoration (
    id smallint NOT NULL,
    step character varying(9) NOT NULL,
    step_at timestamp(3) with time zone NOT NULL,
    begun_at timestamp(3) with time zone NOT NULL,
    begun_by character varying(100) NOT NULL,
    source character varying(300) NOT NULL,
    taken_at timestamp(3) with time zone,
    finished_at timestamp(3) with time zone,
    last_error text NOT NULL,
    report jsonb NOT NULL,
    CONSTRAINT restoration_finished_is_open CHECK ((((finished_at IS NOT NULL) AND ((step)::text = 'open'::text)) OR ((NOT ((step)::text = 'open'::text)) AND (finished_at IS NULL)))),
    CONSTRAINT restoration_one_row CHECK ((id = 1)),
    CONSTRAINT restoration_step_known CHECK (((step)::text = ANY ((ARRAY['reconcile'::character varying, 'recover'::character varying, 'validate'::character varying, 'open'::character varying])::text[])))
);
CREATE TABLE retention_rule (
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    seconds bigint NOT NULL,
    note character varying(200) NOT NULL,
    CONSTRAINT retention_rule_namespace_form CHECK (((namespace)::text ~ '^[A-Za-z].*[:/]$'::text)),
    CONSTRAINT retention_rule_seconds CHECK ((seconds >= 0))
);
ALTER TABLE retention_rule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME retention_rule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE retire_run (
    id uuid NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    reason character varying(200) NOT NULL,
    started_by character varying(150) NOT NULL,
    state character varying(9) NOT NULL,
    after character varying(512) NOT NULL COLLATE pg_catalog."C",
    is_listed boolean NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL,
    dropped_files bigint NOT NULL,
    dropped_bytes bigint NOT NULL,
    refused_files bigint NOT NULL,
    gone_files bigint NOT NULL,
    started_at timestamp(3) with time zone NOT NULL,
    finished_at timestamp(3) with time zone,
    CONSTRAINT retire_run_finished_at CHECK (((NOT ((state)::text = 'finished'::text)) OR (finished_at IS NOT NULL))),
    CONSTRAINT retire_run_state_known CHECK (((state)::text = ANY ((ARRAY['running'::character varying, 'finished'::character varying, 'cancelled'::character varying])::text[])))
);
CREATE TABLE retired_artifact (
    id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    content_checksum character varying(136) NOT NULL,
    content_sha256 bytea,
    content_length bigint NOT NULL,
    content_type character varying(128),
    content_encoding character varying(128),
    born_at timestamp(3) with time zone NOT NULL,
    died_at timestamp(3) with time zone NOT NULL,
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    state character varying(8) NOT NULL,
    state_at timestamp(3) with time zone NOT NULL,
    ended_at timestamp(3) with time zone,
    CONSTRAINT retired_state_known CHECK (((state)::text = ANY ((ARRAY['retained'::character varying, 'removing'::character varying, 'purged'::character varying, 'restored'::character varying])::text[])))
);
CREATE TABLE role_assignment (
    id bigint NOT NULL,
    principal character varying(255) NOT NULL,
    role character varying(32) NOT NULL,
    note character varying(200) NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    CONSTRAINT role_assignment_role CHECK (((role)::text = ANY ((ARRAY['archive-operator'::character varying, 'file-sync-operator'::character varying, 'site-operator'::character varying, 'auditor'::character varying])::text[])))
);
ALTER TABLE role_assignment ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME role_assignment_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE scrub_outcome (
    result character varying(16) NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL
);
CREATE TABLE scrub_policy (
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    period_seconds bigint NOT NULL,
    bytes_per_second bigint,
    from_hour smallint NOT NULL,
    until_hour smallint NOT NULL,
    note character varying(200) NOT NULL,
    CONSTRAINT scrub_policy_from_hour_check CHECK ((from_hour >= 0)),
    CONSTRAINT scrub_policy_namespace_form CHECK (((namespace)::text ~ '^[A-Za-z].*[:/]$'::text)),
    CONSTRAINT scrub_policy_sound CHECK (((from_hour <= 23) AND (period_seconds >= 0) AND (until_hour <= 23) AND ((bytes_per_second IS NULL) OR (bytes_per_second >= 0)))),
    CONSTRAINT scrub_policy_until_hour_check CHECK ((until_hour >= 0))
);
ALTER TABLE scrub_policy ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME scrub_policy_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE scrub_progress (
    id smallint NOT NULL,
    epoch character varying(64) NOT NULL,
    known_txid bigint NOT NULL,
    known_id uuid NOT NULL,
    schedule character varying(64) NOT NULL,
    judged_id uuid,
    lease_holder uuid,
    lease_until timestamp with time zone,
    CONSTRAINT scrub_progress_lease_whole CHECK ((((lease_holder IS NULL) AND (lease_until IS NULL)) OR ((lease_holder IS NOT NULL) AND (lease_until IS NOT NULL)))),
    CONSTRAINT scrub_progress_one_row CHECK ((id = 1))
);
CREATE TABLE site_location (
    artifact_id uuid NOT NULL,
    site_id uuid NOT NULL,
    releasing_at timestamp(3) with time zone,
    release_id uuid,
    release_stored_at timestamp(3) with time zone,
    CONSTRAINT site_location_release_whole CHECK ((num_nulls(releasing_at, release_id, release_stored_at) = ANY (ARRAY[0, 3])))
);
CREATE TABLE snapshot (
    id uuid NOT NULL,
    name character varying(200) NOT NULL,
    source character varying(64) NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    moment timestamp(3) with time zone NOT NULL,
    state character varying(8) NOT NULL,
    digest character varying(32) NOT NULL,
    artifacts bigint NOT NULL,
    size bigint NOT NULL,
    tree jsonb NOT NULL,
    is_orphan boolean NOT NULL,
    created_at timestamp(3) with time zone NOT NULL,
    created_by character varying(200) NOT NULL,
    kept_at timestamp(3) with time zone,
    schedule_id bigint,
    CONSTRAINT snapshot_kept_is_measured CHECK (((NOT ((state)::text = 'kept'::text)) OR ((kept_at IS NOT NULL) AND (NOT ((digest)::text = ''::text))))),
    CONSTRAINT snapshot_namespace_form CHECK (((namespace)::text ~ '^[A-Za-z].*[:/]$'::text)),
    CONSTRAINT snapshot_state_known CHECK (((state)::text = ANY ((ARRAY['pinning'::character varying, 'kept'::character varying, 'released'::character varying])::text[])))
);
CREATE TABLE snapshot_acknowledgement (
    id bigint NOT NULL,
    "position" character varying(100) NOT NULL,
    acknowledged_at timestamp(3) with time zone NOT NULL,
    dropped_at timestamp(3) with time zone,
    remote_id bigint NOT NULL,
    snapshot_id uuid NOT NULL
);
ALTER TABLE snapshot_acknowledgement ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME snapshot_acknowledgement_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE snapshot_mark (
    id smallint NOT NULL,
    history_begins_at timestamp(3) with time zone,
    told_until timestamp(3) with time zone,
    held_artifacts bigint NOT NULL,
    held_size bigint NOT NULL,
    CONSTRAINT snapshot_mark_one_row CHECK ((id = 1))
);
CREATE TABLE snapshot_pin_source (
    remote_id bigint NOT NULL,
    url character varying(512) NOT NULL,
    heard_until timestamp(3) with time zone NOT NULL,
    heard_at timestamp(3) with time zone NOT NULL
);
CREATE TABLE snapshot_schedule (
    id bigint NOT NULL,
    name character varying(64) NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    hourly integer NOT NULL,
    daily integer NOT NULL,
    monthly integer NOT NULL,
    yearly integer NOT NULL,
    enabled boolean NOT NULL,
    last_period character varying(20) NOT NULL,
    CONSTRAINT snapshot_schedule_daily_check CHECK ((daily >= 0)),
    CONSTRAINT snapshot_schedule_hourly_check CHECK ((hourly >= 0)),
    CONSTRAINT snapshot_schedule_keeps_some CHECK (((hourly > 0) OR (daily > 0) OR (monthly > 0) OR (yearly > 0))),
    CONSTRAINT snapshot_schedule_monthly_check CHECK ((monthly >= 0)),
    CONSTRAINT snapshot_schedule_namespace_form CHECK (((namespace)::text ~ '^[A-Za-z].*[:/]$'::text)),
    CONSTRAINT snapshot_schedule_yearly_check CHECK ((yearly >= 0))
);
ALTER TABLE snapshot_schedule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME snapshot_schedule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE socialaccount_socialaccount (
    id integer NOT NULL,
    provider character varying(200) NOT NULL,
    uid character varying(191) NOT NULL,
    last_login timestamp with time zone NOT NULL,
    date_joined timestamp with time zone NOT NULL,
    extra_data jsonb NOT NULL,
    user_id integer NOT NULL
);
ALTER TABLE socialaccount_socialaccount ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME socialaccount_socialaccount_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE socialaccount_socialapp (
    id integer NOT NULL,
    provider character varying(30) NOT NULL,
    name character varying(40) NOT NULL,
    client_id character varying(191) NOT NULL,
    secret character varying(191) NOT NULL,
    key character varying(191) NOT NULL,
    provider_id character varying(200) NOT NULL,
    settings jsonb NOT NULL
);
ALTER TABLE socialaccount_socialapp ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME socialaccount_socialapp_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE socialaccount_socialtoken (
    id integer NOT NULL,
    token text NOT NULL,
    token_secret text NOT NULL,
    expires_at timestamp with time zone,
    account_id integer NOT NULL,
    app_id integer
);
ALTER TABLE socialaccount_socialtoken ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME socialaccount_socialtoken_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE storage_location (
    artifact_id uuid NOT NULL,
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    stored_at timestamp(3) with time zone NOT NULL
);
CREATE TABLE storage_location_event (
    id uuid NOT NULL,
    uri character varying(512) COLLATE pg_catalog."C",
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL,
    txid bigint NOT NULL
);
CREATE TABLE storage_site (
    id uuid NOT NULL,
    resource_id character varying(512) NOT NULL,
    name character varying(32) NOT NULL,
    allow_read boolean NOT NULL,
    allow_write boolean NOT NULL,
    last_modified timestamp(3) with time zone NOT NULL,
    meta_checksum character varying(136) NOT NULL,
    txid bigint NOT NULL
);
CREATE TABLE sync_attempt (
    artifact_id uuid NOT NULL,
    uri character varying(512) NOT NULL COLLATE pg_catalog."C",
    content_length bigint NOT NULL,
    priority integer NOT NULL,
    is_repair boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    attempts integer NOT NULL,
    next_try_at timestamp with time zone NOT NULL,
    lease_holder uuid,
    lease_until timestamp with time zone,
    last_tried_at timestamp with time zone,
    last_reason character varying(32) NOT NULL,
    last_error text NOT NULL,
    CONSTRAINT sync_attempt_lease_whole CHECK ((((lease_holder IS NULL) AND (lease_until IS NULL)) OR ((lease_holder IS NOT NULL) AND (lease_until IS NOT NULL))))
);
CREATE TABLE sync_outcome (
    reason character varying(32) NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL
);
CREATE TABLE sync_policy (
    id bigint NOT NULL,
    namespace character varying(512) NOT NULL COLLATE pg_catalog."C",
    wanted boolean NOT NULL,
    priority integer NOT NULL,
    note character varying(200) NOT NULL,
    CONSTRAINT sync_policy_namespace_form CHECK (((namespace)::text ~ '^[A-Za-z].*[:/]$'::text))
);
ALTER TABLE sync_policy ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME sync_policy_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE sync_scan (
    id smallint NOT NULL,
    epoch character varying(64) NOT NULL,
    policy character varying(64) NOT NULL,
    known_txid bigint NOT NULL,
    known_id uuid NOT NULL,
    lost_txid bigint NOT NULL,
    lost_id uuid NOT NULL,
    judged_id uuid,
    CONSTRAINT sync_scan_one_row CHECK ((id = 1))
);
CREATE TABLE trusted_key (
    id uuid NOT NULL,
    name character varying(32) NOT NULL,
    public_key bytea NOT NULL,
    fetched_at timestamp with time zone NOT NULL,
    remote_id bigint NOT NULL
);
CREATE TABLE validation_finding (
    id bigint NOT NULL,
    policy character varying(32) NOT NULL,
    label character varying(32) NOT NULL,
    action character varying(24) NOT NULL,
    storage_bucket character varying(512) NOT NULL COLLATE pg_catalog."C",
    storage_id character varying(512) NOT NULL COLLATE pg_catalog."C",
    artifact_id uuid,
    uri character varying(512) COLLATE pg_catalog."C",
    content_length bigint,
    detail text NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    state character varying(8) NOT NULL,
    state_at timestamp with time zone NOT NULL,
    decided_by character varying(150) NOT NULL,
    run_id uuid NOT NULL
);
ALTER TABLE validation_finding ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME validation_finding_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE validation_run (
    id uuid NOT NULL,
    policy character varying(32) NOT NULL,
    bucket_prefix character varying(3) NOT NULL,
    digits smallint NOT NULL,
    started_by character varying(150) NOT NULL,
    started_at timestamp with time zone NOT NULL,
    state character varying(8) NOT NULL,
    next_bucket character varying(3) NOT NULL,
    artifacts bigint NOT NULL,
    objects_seen bigint NOT NULL,
    bytes_seen bigint NOT NULL,
    counts jsonb NOT NULL,
    not_kept bigint NOT NULL,
    lease_holder uuid,
    lease_until timestamp with time zone,
    updated_at timestamp with time zone,
    finished_at timestamp with time zone,
    last_error text NOT NULL,
    CONSTRAINT validation_run_finished CHECK ((((finished_at IS NULL) AND ((state)::text = 'running'::text)) OR ((finished_at IS NOT NULL) AND ((next_bucket)::text = ''::text) AND ((state)::text = 'complete'::text)))),
    CONSTRAINT validation_run_lease_whole CHECK ((((lease_holder IS NULL) AND (lease_until IS NULL)) OR ((lease_holder IS NOT NULL) AND (lease_until IS NOT NULL))))
);
INSERT INTO audit_shift VALUES (0);
ALTER TABLE ONLY account_emailaddress
    ADD CONSTRAINT account_emailaddress_pkey PRIMARY KEY (id);
ALTER TABLE ONLY account_emailaddress
    ADD CONSTRAINT account_emailaddress_user_id_email_987c8728_uniq UNIQUE (user_id, email);
ALTER TABLE ONLY account_emailconfirmation
    ADD CONSTRAINT account_emailconfirmation_key_key UNIQUE (key);
ALTER TABLE ONLY account_emailconfirmation
    ADD CONSTRAINT account_emailconfirmation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY alarm_delivery
    ADD CONSTRAINT alarm_delivery_once UNIQUE (alarm_id, channel);
ALTER TABLE ONLY alarm_delivery
    ADD CONSTRAINT alarm_delivery_pkey PRIMARY KEY (id);
ALTER TABLE ONLY alarm
    ADD CONSTRAINT alarm_pkey PRIMARY KEY (id);
ALTER TABLE ONLY api_token
    ADD CONSTRAINT api_token_digest_key UNIQUE (digest);
ALTER TABLE ONLY api_token
    ADD CONSTRAINT api_token_name_key UNIQUE (name);
ALTER TABLE ONLY api_token
    ADD CONSTRAINT api_token_pkey PRIMARY KEY (id);
ALTER TABLE ONLY api_token
    ADD CONSTRAINT api_token_previous_digest_key UNIQUE (previous_digest);
ALTER TABLE ONLY artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY artifact
    ADD CONSTRAINT artifact_uri UNIQUE (uri);
ALTER TABLE ONLY audit_archive
    ADD CONSTRAINT audit_archive_pkey PRIMARY KEY (to_seal);
ALTER TABLE ONLY audit_entry
    ADD CONSTRAINT audit_entry_pkey PRIMARY KEY (id);
ALTER TABLE ONLY audit_head
    ADD CONSTRAINT audit_head_pkey PRIMARY KEY (id);
ALTER TABLE ONLY audit_read_rule
    ADD CONSTRAINT audit_read_rule_namespace UNIQUE (namespace);
ALTER TABLE ONLY audit_read_rule
    ADD CONSTRAINT audit_read_rule_pkey PRIMARY KEY (id);
ALTER TABLE ONLY audit_seal
    ADD CONSTRAINT audit_seal_pkey PRIMARY KEY (number);
ALTER TABLE ONLY auth_group
    ADD CONSTRAINT auth_group_name_key UNIQUE (name);
ALTER TABLE ONLY auth_group_permissions
    ADD CONSTRAINT auth_group_permissions_group_id_permission_id_0cd325b0_uniq UNIQUE (group_id, permission_id);
ALTER TABLE ONLY auth_group_permissions
    ADD CONSTRAINT auth_group_permissions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_group
    ADD CONSTRAINT auth_group_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_permission
    ADD CONSTRAINT auth_permission_content_type_id_codename_01ab375a_uniq UNIQUE (content_type_id, codename);
ALTER TABLE ONLY auth_permission
    ADD CONSTRAINT auth_permission_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_user_groups
    ADD CONSTRAINT auth_user_groups_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_user_groups
    ADD CONSTRAINT auth_user_groups_user_id_group_id_94350c0c_uniq UNIQUE (user_id, group_id);
ALTER TABLE ONLY auth_user
    ADD CONSTRAINT auth_user_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_user_user_permissions
    ADD CONSTRAINT auth_user_user_permissions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY auth_user_user_permissions
    ADD CONSTRAINT auth_user_user_permissions_user_id_permission_id_14a6b632_uniq UNIQUE (user_id, permission_id);
ALTER TABLE ONLY auth_user
    ADD CONSTRAINT auth_user_username_key UNIQUE (username);
ALTER TABLE ONLY brake_rule
    ADD CONSTRAINT brake_rule_namespace UNIQUE (namespace);
ALTER TABLE ONLY brake_rule
    ADD CONSTRAINT brake_rule_pkey PRIMARY KEY (id);
ALTER TABLE ONLY copy_release_outcome
    ADD CONSTRAINT copy_release_outcome_pkey PRIMARY KEY (outcome);
ALTER TABLE ONLY copy_release
    ADD CONSTRAINT copy_release_pkey PRIMARY KEY (id);
ALTER TABLE ONLY copy_verification
    ADD CONSTRAINT copy_verification_artifact_id_key UNIQUE (artifact_id);
ALTER TABLE ONLY copy_verification
    ADD CONSTRAINT copy_verification_one_per_object UNIQUE (storage_bucket, storage_id);
ALTER TABLE ONLY copy_verification
    ADD CONSTRAINT copy_verification_pkey PRIMARY KEY (id);
ALTER TABLE ONLY damaged_copy
    ADD CONSTRAINT damaged_copy_pkey PRIMARY KEY (id);
ALTER TABLE ONLY deleted_artifact_event
    ADD CONSTRAINT deleted_artifact_event_pkey PRIMARY KEY (id);
ALTER TABLE ONLY deleted_storage_location_event
    ADD CONSTRAINT deleted_storage_location_event_pkey PRIMARY KEY (id);
ALTER TABLE ONLY deletion_brake
    ADD CONSTRAINT deletion_brake_once UNIQUE (source, namespace);
ALTER TABLE ONLY deletion_brake
    ADD CONSTRAINT deletion_brake_pkey PRIMARY KEY (id);
ALTER TABLE ONLY django_admin_log
    ADD CONSTRAINT django_admin_log_pkey PRIMARY KEY (id);
ALTER TABLE ONLY django_content_type
    ADD CONSTRAINT django_content_type_app_label_model_76bd3d3b_uniq UNIQUE (app_label, model);
ALTER TABLE ONLY django_content_type
    ADD CONSTRAINT django_content_type_pkey PRIMARY KEY (id);
ALTER TABLE ONLY django_session
    ADD CONSTRAINT django_session_pkey PRIMARY KEY (session_key);
ALTER TABLE ONLY feed_reader
    ADD CONSTRAINT feed_reader_once UNIQUE (caller, inventory_id);
ALTER TABLE ONLY feed_reader
    ADD CONSTRAINT feed_reader_pkey PRIMARY KEY (id);
ALTER TABLE ONLY harvest_conflict
    ADD CONSTRAINT harvest_conflict_loser_id_key UNIQUE (loser_id);
ALTER TABLE ONLY harvest_conflict
    ADD CONSTRAINT harvest_conflict_pkey PRIMARY KEY (id);
ALTER TABLE ONLY harvest_rejection
    ADD CONSTRAINT harvest_rejection_once UNIQUE (remote_id, stream, row_digest);
ALTER TABLE ONLY harvest_rejection
    ADD CONSTRAINT harvest_rejection_pkey PRIMARY KEY (id);
ALTER TABLE ONLY harvest_state
    ADD CONSTRAINT harvest_state_one_per_stream UNIQUE (remote_id, name, selector);
ALTER TABLE ONLY harvest_state
    ADD CONSTRAINT harvest_state_pkey PRIMARY KEY (id);
ALTER TABLE ONLY harvested_page
    ADD CONSTRAINT harvested_page_once UNIQUE (txid, epoch);
ALTER TABLE ONLY harvested_page
    ADD CONSTRAINT harvested_page_pkey PRIMARY KEY (id);
ALTER TABLE ONLY inventory_identity
    ADD CONSTRAINT inventory_identity_pkey PRIMARY KEY (id);
ALTER TABLE ONLY namespace_grant
    ADD CONSTRAINT namespace_grant_pkey PRIMARY KEY (id);
ALTER TABLE ONLY namespace_grant
    ADD CONSTRAINT namespace_grant_prefix_key UNIQUE (prefix);
ALTER TABLE ONLY obsolete_storage_location
    ADD CONSTRAINT obsolete_one_per_object UNIQUE (storage_bucket, storage_id);
ALTER TABLE ONLY obsolete_storage_location
    ADD CONSTRAINT obsolete_storage_location_pkey PRIMARY KEY (id);
ALTER TABLE ONLY pairing_invitation
    ADD CONSTRAINT pairing_invitation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY preauth_key_pair
    ADD CONSTRAINT preauth_key_pair_name_key UNIQUE (name);
ALTER TABLE ONLY preauth_key_pair
    ADD CONSTRAINT preauth_key_pair_pkey PRIMARY KEY (id);
ALTER TABLE ONLY put_transaction
    ADD CONSTRAINT put_transaction_pkey PRIMARY KEY (id);
ALTER TABLE ONLY quarantined_object
    ADD CONSTRAINT quarantined_object_pkey PRIMARY KEY (id);
ALTER TABLE ONLY quarantined_object
    ADD CONSTRAINT quarantined_one_per_object UNIQUE (storage_bucket, storage_id);
ALTER TABLE ONLY reconcile_difference
    ADD CONSTRAINT reconcile_difference_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconcile_run
    ADD CONSTRAINT reconcile_run_pkey PRIMARY KEY (id);
ALTER TABLE ONLY remote_inventory
    ADD CONSTRAINT remote_inventory_name_key UNIQUE (name);
ALTER TABLE ONLY remote_inventory
    ADD CONSTRAINT remote_inventory_pkey PRIMARY KEY (id);
ALTER TABLE ONLY remote_inventory
    ADD CONSTRAINT remote_inventory_site_id_key UNIQUE (site_id);
ALTER TABLE ONLY restoration
    ADD CONSTRAINT restoration_pkey PRIMARY KEY (id);
ALTER TABLE ONLY retention_rule
    ADD CONSTRAINT retention_rule_namespace UNIQUE (namespace);
ALTER TABLE ONLY retention_rule
    ADD CONSTRAINT retention_rule_pkey PRIMARY KEY (id);
ALTER TABLE ONLY retire_run
    ADD CONSTRAINT retire_run_pkey PRIMARY KEY (id);
ALTER TABLE ONLY retired_artifact
    ADD CONSTRAINT retired_artifact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY role_assignment
    ADD CONSTRAINT role_assignment_once UNIQUE (principal, role);
ALTER TABLE ONLY role_assignment
    ADD CONSTRAINT role_assignment_pkey PRIMARY KEY (id);
ALTER TABLE ONLY scrub_outcome
    ADD CONSTRAINT scrub_outcome_pkey PRIMARY KEY (result);
ALTER TABLE ONLY scrub_policy
    ADD CONSTRAINT scrub_policy_namespace UNIQUE (namespace);
ALTER TABLE ONLY scrub_policy
    ADD CONSTRAINT scrub_policy_pkey PRIMARY KEY (id);
ALTER TABLE ONLY scrub_progress
    ADD CONSTRAINT scrub_progress_pkey PRIMARY KEY (id);
ALTER TABLE ONLY site_location
    ADD CONSTRAINT site_location_pkey PRIMARY KEY (artifact_id, site_id);
ALTER TABLE ONLY snapshot_acknowledgement
    ADD CONSTRAINT snapshot_acknowledged_once UNIQUE (snapshot_id, remote_id);
ALTER TABLE ONLY snapshot_acknowledgement
    ADD CONSTRAINT snapshot_acknowledgement_pkey PRIMARY KEY (id);
ALTER TABLE ONLY snapshot_mark
    ADD CONSTRAINT snapshot_mark_pkey PRIMARY KEY (id);
ALTER TABLE ONLY snapshot_pin_source
    ADD CONSTRAINT snapshot_pin_source_pkey PRIMARY KEY (remote_id);
ALTER TABLE ONLY snapshot
    ADD CONSTRAINT snapshot_pkey PRIMARY KEY (id);
ALTER TABLE ONLY snapshot_schedule
    ADD CONSTRAINT snapshot_schedule_name_key UNIQUE (name);
ALTER TABLE ONLY snapshot_schedule
    ADD CONSTRAINT snapshot_schedule_pkey PRIMARY KEY (id);
ALTER TABLE ONLY socialaccount_socialaccount
    ADD CONSTRAINT socialaccount_socialaccount_pkey PRIMARY KEY (id);
ALTER TABLE ONLY socialaccount_socialaccount
    ADD CONSTRAINT socialaccount_socialaccount_provider_uid_fc810c6e_uniq UNIQUE (provider, uid);
ALTER TABLE ONLY socialaccount_socialapp
    ADD CONSTRAINT socialaccount_socialapp_pkey PRIMARY KEY (id);
ALTER TABLE ONLY socialaccount_socialtoken
    ADD CONSTRAINT socialaccount_socialtoken_app_id_account_id_fca4e0ac_uniq UNIQUE (app_id, account_id);
ALTER TABLE ONLY socialaccount_socialtoken
    ADD CONSTRAINT socialaccount_socialtoken_pkey PRIMARY KEY (id);
ALTER TABLE ONLY storage_location_event
    ADD CONSTRAINT storage_location_event_pkey PRIMARY KEY (id);
ALTER TABLE ONLY storage_location
    ADD CONSTRAINT storage_location_pkey PRIMARY KEY (artifact_id);
ALTER TABLE ONLY storage_site
    ADD CONSTRAINT storage_site_pkey PRIMARY KEY (id);
ALTER TABLE ONLY storage_site
    ADD CONSTRAINT storage_site_resource_id_key UNIQUE (resource_id);
ALTER TABLE ONLY sync_attempt
    ADD CONSTRAINT sync_attempt_pkey PRIMARY KEY (artifact_id);
ALTER TABLE ONLY sync_outcome
    ADD CONSTRAINT sync_outcome_pkey PRIMARY KEY (reason);
ALTER TABLE ONLY sync_policy
    ADD CONSTRAINT sync_policy_namespace UNIQUE (namespace);
ALTER TABLE ONLY sync_policy
    ADD CONSTRAINT sync_policy_pkey PRIMARY KEY (id);
ALTER TABLE ONLY sync_scan
    ADD CONSTRAINT sync_scan_pkey PRIMARY KEY (id);
ALTER TABLE ONLY trusted_key
    ADD CONSTRAINT trusted_key_once UNIQUE (remote_id, name);
ALTER TABLE ONLY trusted_key
    ADD CONSTRAINT trusted_key_pkey PRIMARY KEY (id);
ALTER TABLE ONLY validation_finding
    ADD CONSTRAINT validation_finding_pkey PRIMARY KEY (id);
ALTER TABLE ONLY validation_run
    ADD CONSTRAINT validation_run_pkey PRIMARY KEY (id);
CREATE INDEX account_emailaddress_email_03be32b2 ON account_emailaddress USING btree (email);
CREATE INDEX account_emailaddress_email_03be32b2_like ON account_emailaddress USING btree (email varchar_pattern_ops);
CREATE INDEX account_emailaddress_user_id_2c513194 ON account_emailaddress USING btree (user_id);
CREATE INDEX account_emailconfirmation_email_address_id_5b7f8c58 ON account_emailconfirmation USING btree (email_address_id);
CREATE INDEX account_emailconfirmation_key_f43612bd_like ON account_emailconfirmation USING btree (key varchar_pattern_ops);
CREATE INDEX alarm_cleared ON alarm USING btree (cleared_at);
CREATE INDEX alarm_delivery_alarm_id_539db937 ON alarm_delivery USING btree (alarm_id);
CREATE UNIQUE INDEX alarm_open_once ON alarm USING btree (kind, subject) WHERE (cleared_at IS NULL);
CREATE INDEX api_token_digest_0ef4c99d_like ON api_token USING btree (digest varchar_pattern_ops);
CREATE INDEX api_token_name_25ccdb17_like ON api_token USING btree (name varchar_pattern_ops);
CREATE INDEX api_token_previous_digest_60ab4e08_like ON api_token USING btree (previous_digest varchar_pattern_ops);
CREATE INDEX artifact_digest ON artifact USING btree (id, digest_word((meta_checksum)::text)) INCLUDE (meta_checksum);
CREATE INDEX artifact_feed ON artifact USING btree (txid, id);
CREATE INDEX audit_entry_at ON audit_entry USING brin (at) WITH (autosummarize='on', pages_per_range='32');
CREATE INDEX audit_entry_not_done ON audit_entry USING btree (outcome, id) WHERE (NOT ((outcome)::text = 'done'::text));
CREATE INDEX audit_entry_order ON audit_entry USING btree (txid, id);
CREATE INDEX audit_entry_rare ON audit_entry USING btree (action, id) WHERE (NOT ((action)::text = ANY ((ARRAY['put'::character varying, 'read'::character varying])::text[])));
CREATE INDEX audit_entry_subject ON audit_entry USING btree (subject, id);
CREATE INDEX audit_entry_who ON audit_entry USING btree (who, id);
CREATE INDEX audit_head_seal ON audit_head USING btree (seal);
CREATE INDEX auth_group_name_a6ea08ec_like ON auth_group USING btree (name varchar_pattern_ops);
CREATE INDEX auth_group_permissions_group_id_b120cbf9 ON auth_group_permissions USING btree (group_id);
CREATE INDEX auth_group_permissions_permission_id_84c5c92e ON auth_group_permissions USING btree (permission_id);
CREATE INDEX auth_permission_content_type_id_2f476e4b ON auth_permission USING btree (content_type_id);
CREATE INDEX auth_user_groups_group_id_97559544 ON auth_user_groups USING btree (group_id);
CREATE INDEX auth_user_groups_user_id_6a12ed8b ON auth_user_groups USING btree (user_id);
CREATE INDEX auth_user_user_permissions_permission_id_1fbb5f2c ON auth_user_user_permissions USING btree (permission_id);
CREATE INDEX auth_user_user_permissions_user_id_a95ead1b ON auth_user_user_permissions USING btree (user_id);
CREATE INDEX auth_user_username_6821ab7c_like ON auth_user USING btree (username varchar_pattern_ops);
CREATE INDEX copy_release_due ON copy_release USING btree (state, next_try_at) WHERE ((state)::text = ANY ((ARRAY['asked'::character varying, 'returning'::character varying])::text[]));
CREATE INDEX copy_release_granted ON copy_release USING btree (artifact_id) WHERE ((state)::text = 'granted'::text);
CREATE INDEX copy_release_location_id_8355fefe ON copy_release USING btree (location_id);
CREATE INDEX copy_release_of_run ON copy_release USING btree (run_id, state, uri);
CREATE UNIQUE INDEX copy_release_one_open ON copy_release USING btree (location_id) WHERE ((state)::text = ANY ((ARRAY['asked'::character varying, 'granted'::character varying, 'returning'::character varying])::text[]));
CREATE INDEX copy_release_outcome_outcome_610f109f_like ON copy_release_outcome USING btree (outcome varchar_pattern_ops);
CREATE INDEX copy_release_run_id_dc12443b ON copy_release USING btree (run_id);
CREATE INDEX copy_verification_age ON copy_verification USING btree (namespace, verified_at) WHERE (artifact_id IS NOT NULL);
CREATE INDEX copy_verification_due ON copy_verification USING btree (namespace, next_at) WHERE ((artifact_id IS NOT NULL) AND (next_at IS NOT NULL));
CREATE INDEX copy_verification_loose ON copy_verification USING btree (id) WHERE (artifact_id IS NULL);
CREATE INDEX copy_verification_odd ON copy_verification USING btree (id) WHERE ((result)::text = ANY ((ARRAY['unreadable'::character varying, 'no_digest'::character varying])::text[]));
CREATE INDEX damaged_copy_artifact ON damaged_copy USING btree (artifact_id);
CREATE INDEX damaged_copy_found ON damaged_copy USING btree (found_at);
CREATE INDEX damaged_copy_place ON damaged_copy USING btree (storage_bucket, storage_id);
CREATE INDEX damaged_copy_state ON damaged_copy USING btree (state, state_at);
CREATE INDEX deleted_artifact_feed ON deleted_artifact_event USING btree (txid, id);
CREATE INDEX deleted_artifact_uri ON deleted_artifact_event USING btree (uri) WHERE (uri IS NOT NULL);
CREATE INDEX deleted_location_feed ON deleted_storage_location_event USING btree (txid, id);
CREATE INDEX django_admin_log_content_type_id_c4bce8eb ON django_admin_log USING btree (content_type_id);
CREATE INDEX django_admin_log_user_id_c564eba6 ON django_admin_log USING btree (user_id);
CREATE INDEX django_session_expire_date_a5c62663 ON django_session USING btree (expire_date);
CREATE INDEX django_session_session_key_c0390e0f_like ON django_session USING btree (session_key varchar_pattern_ops);
CREATE INDEX harvest_conflict_loser_site_id_8d338fc7 ON harvest_conflict USING btree (loser_site_id);
CREATE INDEX harvest_conflict_winner ON harvest_conflict USING btree (winner_id);
CREATE INDEX harvest_rejection_remote_id_167d466e ON harvest_rejection USING btree (remote_id);
CREATE INDEX harvest_state_remote_id_688df02d ON harvest_state USING btree (remote_id);
CREATE INDEX namespace_grant_prefix_dfeaa1b0_like ON namespace_grant USING btree (prefix varchar_pattern_ops);
CREATE INDEX obsolete_by_age ON obsolete_storage_location USING btree (last_modified);
CREATE INDEX pairing_invitation_name ON pairing_invitation USING btree (name);
CREATE INDEX preauth_key_pair_name_6c5ddbcb_like ON preauth_key_pair USING btree (name varchar_pattern_ops);
CREATE INDEX put_transaction_age ON put_transaction USING btree (begun_at);
CREATE INDEX put_transaction_id_757f2b80_like ON put_transaction USING btree (id varchar_pattern_ops);
CREATE INDEX quarantined_by_age ON quarantined_object USING btree (quarantined_at) WHERE ((state)::text = 'quarantined'::text);
CREATE INDEX quarantined_removing ON quarantined_object USING btree (state_at) WHERE ((state)::text = 'removing'::text);
CREATE INDEX quarantined_uri ON quarantined_object USING btree (uri) WHERE (uri IS NOT NULL);
CREATE INDEX reconcile_difference_run_id_0aab3fdd ON reconcile_difference USING btree (run_id);
CREATE INDEX reconcile_run_latest ON reconcile_run USING btree (remote_id, started_at DESC);
CREATE INDEX reconcile_run_remote_id_e063093c ON reconcile_run USING btree (remote_id);
CREATE INDEX remote_inventory_name_4b1c5514_like ON remote_inventory USING btree (name varchar_pattern_ops);
CREATE UNIQUE INDEX remote_inventory_paired_once ON remote_inventory USING btree (inventory_id) WHERE (paired_at IS NOT NULL);
CREATE INDEX retire_run_newest ON retire_run USING btree (started_at DESC);
CREATE UNIQUE INDEX retire_run_one_per_namespace ON retire_run USING btree (namespace) WHERE ((state)::text = 'running'::text);
CREATE INDEX retired_by_place ON retired_artifact USING btree (storage_bucket, storage_id) WHERE ((state)::text = ANY ((ARRAY['retained'::character varying, 'removing'::character varying])::text[]));
CREATE INDEX retired_by_uri ON retired_artifact USING btree (uri, died_at);
CREATE INDEX retired_due ON retired_artifact USING btree (died_at) WHERE ((state)::text = 'retained'::text);
CREATE INDEX retired_history ON retired_artifact USING btree (died_at) WHERE ((state)::text = ANY ((ARRAY['purged'::character varying, 'restored'::character varying])::text[]));
CREATE INDEX retired_removing ON retired_artifact USING btree (state_at) WHERE ((state)::text = 'removing'::text);
CREATE INDEX retired_restored ON retired_artifact USING btree (state_at) WHERE ((state)::text = 'restored'::text);
CREATE INDEX scrub_outcome_result_e7b9d450_like ON scrub_outcome USING btree (result varchar_pattern_ops);
CREATE INDEX site_location_by_site ON site_location USING btree (site_id, artifact_id);
CREATE INDEX site_location_releasing ON site_location USING btree (site_id, releasing_at) WHERE (releasing_at IS NOT NULL);
CREATE INDEX snapshot_acknowledgement_remote_id_554b68d4 ON snapshot_acknowledgement USING btree (remote_id);
CREATE INDEX snapshot_acknowledgement_snapshot_id_a3798e71 ON snapshot_acknowledgement USING btree (snapshot_id);
CREATE INDEX snapshot_by_moment ON snapshot USING btree (moment, id);
CREATE UNIQUE INDEX snapshot_name ON snapshot USING btree (name) WHERE (((source)::text = ''::text) AND (NOT ((state)::text = 'released'::text)));
CREATE INDEX snapshot_schedule_id_bcc45d41 ON snapshot USING btree (schedule_id);
CREATE INDEX snapshot_schedule_name_f1081952_like ON snapshot_schedule USING btree (name varchar_pattern_ops);
CREATE INDEX socialaccount_socialaccount_user_id_8146e70c ON socialaccount_socialaccount USING btree (user_id);
CREATE INDEX socialaccount_socialtoken_account_id_951f210e ON socialaccount_socialtoken USING btree (account_id);
CREATE INDEX socialaccount_socialtoken_app_id_636a42d7 ON socialaccount_socialtoken USING btree (app_id);
CREATE UNIQUE INDEX storage_location_by_place ON storage_location USING btree (storage_bucket, storage_id) INCLUDE (artifact_id);
CREATE INDEX storage_location_feed ON storage_location_event USING btree (txid, id);
CREATE INDEX storage_site_feed ON storage_site USING btree (txid, id);
CREATE INDEX storage_site_resource_id_cb7b8a4f_like ON storage_site USING btree (resource_id varchar_pattern_ops);
CREATE INDEX sync_attempt_lease ON sync_attempt USING btree (lease_holder) WHERE (lease_holder IS NOT NULL);
CREATE INDEX sync_attempt_order ON sync_attempt USING btree (priority DESC, next_try_at, artifact_id);
CREATE INDEX sync_outcome_reason_e81b63eb_like ON sync_outcome USING btree (reason varchar_pattern_ops);
CREATE INDEX trusted_key_remote_id_a7ca8468 ON trusted_key USING btree (remote_id);
CREATE UNIQUE INDEX unique_primary_email ON account_emailaddress USING btree (user_id, "primary") WHERE "primary";
CREATE UNIQUE INDEX unique_verified_email ON account_emailaddress USING btree (email) WHERE verified;
CREATE INDEX validation_finding_list ON validation_finding USING btree (state, label, id);
CREATE UNIQUE INDEX validation_finding_once ON validation_finding USING btree (policy, storage_bucket, storage_id) WHERE ((state)::text = 'open'::text);
CREATE INDEX validation_finding_run_id_23393334 ON validation_finding USING btree (run_id);
CREATE INDEX validation_finding_uri ON validation_finding USING btree (uri) WHERE (uri IS NOT NULL);
CREATE INDEX validation_run_by_age ON validation_run USING btree (started_at DESC);
CREATE UNIQUE INDEX validation_run_one_at_a_time ON validation_run USING btree (policy, bucket_prefix) WHERE ((state)::text = 'running'::text);
CREATE TRIGGER api_token_told AFTER INSERT OR DELETE OR UPDATE OF name, digest, previous_digest, previous_until, grants, prefixes, methods, expires_at, revoked_at OR TRUNCATE ON api_token FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER artifact_insert BEFORE INSERT ON artifact FOR EACH ROW WHEN ((new.txid IS DISTINCT FROM ((pg_current_xact_id())::text)::bigint)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER artifact_update BEFORE UPDATE ON artifact FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER audit_archive_gone BEFORE DELETE ON audit_archive FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_archive_kept BEFORE UPDATE OR TRUNCATE ON audit_archive FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_entry_gone AFTER DELETE ON audit_entry REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_entries();
CREATE TRIGGER audit_entry_kept BEFORE UPDATE OR TRUNCATE ON audit_entry FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_entry_stamp BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION stamp_audit();
CREATE TRIGGER audit_head_gone BEFORE DELETE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_head_kept BEFORE UPDATE OR TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_read_rule_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON audit_read_rule FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER audit_seal_gone AFTER DELETE ON audit_seal REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_seals();
CREATE TRIGGER audit_seal_kept BEFORE UPDATE OR TRUNCATE ON audit_seal FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER deleted_artifact_event_insert BEFORE INSERT ON deleted_artifact_event FOR EACH ROW EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER deleted_artifact_event_update BEFORE UPDATE ON deleted_artifact_event FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER deleted_storage_location_event_insert BEFORE INSERT ON deleted_storage_location_event FOR EACH ROW EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER deleted_storage_location_event_update BEFORE UPDATE ON deleted_storage_location_event FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER namespace_grant_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON namespace_grant FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER remote_inventory_changed_told AFTER UPDATE ON remote_inventory FOR EACH ROW WHEN ((((((((((old.name)::text IS DISTINCT FROM (new.name)::text) OR ((old.role)::text IS DISTINCT FROM (new.role)::text)) OR ((old.url)::text IS DISTINCT FROM (new.url)::text)) OR (old.enabled IS DISTINCT FROM new.enabled)) OR (old.inventory_id IS DISTINCT FROM new.inventory_id)) OR (old.site_id IS DISTINCT FROM new.site_id)) OR (old.paired_at IS DISTINCT FROM new.paired_at)) OR (old.revoked_at IS DISTINCT FROM new.revoked_at))) EXECUTE FUNCTION tell_access();
CREATE TRIGGER remote_inventory_emptied_told AFTER TRUNCATE ON remote_inventory FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER remote_inventory_told AFTER INSERT OR DELETE ON remote_inventory FOR EACH ROW EXECUTE FUNCTION tell_access();
CREATE TRIGGER role_assignment_told AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON role_assignment FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER storage_location_event_insert BEFORE INSERT ON storage_location_event FOR EACH ROW EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER storage_location_event_update BEFORE UPDATE ON storage_location_event FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER storage_location_not_removed BEFORE INSERT OR UPDATE OF storage_id, storage_bucket ON storage_location FOR EACH ROW EXECUTE FUNCTION refuse_removed_object();
CREATE TRIGGER storage_site_insert BEFORE INSERT ON storage_site FOR EACH ROW EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER storage_site_kept AFTER DELETE OR UPDATE OF id ON storage_site FOR EACH ROW EXECUTE FUNCTION keep_storage_site();
CREATE TRIGGER storage_site_update BEFORE UPDATE ON storage_site FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION stamp_txid();
CREATE TRIGGER trusted_key_changed_told AFTER UPDATE ON trusted_key FOR EACH ROW WHEN ((((old.remote_id IS DISTINCT FROM new.remote_id) OR ((old.name)::text IS DISTINCT FROM (new.name)::text)) OR (old.public_key IS DISTINCT FROM new.public_key))) EXECUTE FUNCTION tell_access();
CREATE TRIGGER trusted_key_emptied_told AFTER TRUNCATE ON trusted_key FOR EACH STATEMENT EXECUTE FUNCTION tell_access();
CREATE TRIGGER trusted_key_told AFTER INSERT OR DELETE ON trusted_key FOR EACH ROW EXECUTE FUNCTION tell_access();
ALTER TABLE ONLY account_emailaddress
    ADD CONSTRAINT account_emailaddress_user_id_2c513194_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES auth_user(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY account_emailconfirmation
    ADD CONSTRAINT account_emailconfirm_email_address_id_5b7f8c58_fk_account_e FOREIGN KEY (email_address_id) REFERENCES account_emailaddress(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY alarm_delivery
    ADD CONSTRAINT alarm_delivery_alarm_id_539db937_fk_alarm_id FOREIGN KEY (alarm_id) REFERENCES alarm(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_group_permissions
    ADD CONSTRAINT auth_group_permissio_permission_id_84c5c92e_fk_auth_perm FOREIGN KEY (permission_id) REFERENCES auth_permission(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_group_permissions
    ADD CONSTRAINT auth_group_permissions_group_id_b120cbf9_fk_auth_group_id FOREIGN KEY (group_id) REFERENCES auth_group(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_permission
    ADD CONSTRAINT auth_permission_content_type_id_2f476e4b_fk_django_co FOREIGN KEY (content_type_id) REFERENCES django_content_type(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_user_groups
    ADD CONSTRAINT auth_user_groups_group_id_97559544_fk_auth_group_id FOREIGN KEY (group_id) REFERENCES auth_group(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_user_groups
    ADD CONSTRAINT auth_user_groups_user_id_6a12ed8b_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES auth_user(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_user_user_permissions
    ADD CONSTRAINT auth_user_user_permi_permission_id_1fbb5f2c_fk_auth_perm FOREIGN KEY (permission_id) REFERENCES auth_permission(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY auth_user_user_permissions
    ADD CONSTRAINT auth_user_user_permissions_user_id_a95ead1b_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES auth_user(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY copy_release
    ADD CONSTRAINT copy_release_of_location FOREIGN KEY (location_id) REFERENCES storage_location(artifact_id) ON UPDATE SET NULL ON DELETE SET NULL;
ALTER TABLE ONLY copy_release
    ADD CONSTRAINT copy_release_run_id_dc12443b_fk_retire_run_id FOREIGN KEY (run_id) REFERENCES retire_run(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY copy_verification
    ADD CONSTRAINT copy_verification_of_location FOREIGN KEY (artifact_id) REFERENCES storage_location(artifact_id) ON UPDATE CASCADE ON DELETE SET NULL;
ALTER TABLE ONLY django_admin_log
    ADD CONSTRAINT django_admin_log_content_type_id_c4bce8eb_fk_django_co FOREIGN KEY (content_type_id) REFERENCES django_content_type(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY django_admin_log
    ADD CONSTRAINT django_admin_log_user_id_c564eba6_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES auth_user(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY harvest_conflict
    ADD CONSTRAINT harvest_conflict_loser_site_id_8d338fc7_fk_storage_site_id FOREIGN KEY (loser_site_id) REFERENCES storage_site(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY harvest_rejection
    ADD CONSTRAINT harvest_rejection_remote_id_167d466e_fk_remote_inventory_id FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY harvest_state
    ADD CONSTRAINT harvest_state_remote_id_688df02d_fk_remote_inventory_id FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY reconcile_difference
    ADD CONSTRAINT reconcile_difference_run_id_0aab3fdd_fk_reconcile_run_id FOREIGN KEY (run_id) REFERENCES reconcile_run(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY reconcile_run
    ADD CONSTRAINT reconcile_run_remote_id_e063093c_fk_remote_inventory_id FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY remote_inventory
    ADD CONSTRAINT remote_inventory_site_id_eb5d2fe2_fk_storage_site_id FOREIGN KEY (site_id) REFERENCES storage_site(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY snapshot_acknowledgement
    ADD CONSTRAINT snapshot_acknowledge_remote_id_554b68d4_fk_remote_in FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY snapshot_acknowledgement
    ADD CONSTRAINT snapshot_acknowledgement_snapshot_id_a3798e71_fk_snapshot_id FOREIGN KEY (snapshot_id) REFERENCES snapshot(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY snapshot_pin_source
    ADD CONSTRAINT snapshot_pin_source_remote_id_25130a1b_fk_remote_inventory_id FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY snapshot
    ADD CONSTRAINT snapshot_schedule_id_bcc45d41_fk_snapshot_schedule_id FOREIGN KEY (schedule_id) REFERENCES snapshot_schedule(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY socialaccount_socialtoken
    ADD CONSTRAINT socialaccount_social_account_id_951f210e_fk_socialacc FOREIGN KEY (account_id) REFERENCES socialaccount_socialaccount(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY socialaccount_socialtoken
    ADD CONSTRAINT socialaccount_social_app_id_636a42d7_fk_socialacc FOREIGN KEY (app_id) REFERENCES socialaccount_socialapp(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY socialaccount_socialaccount
    ADD CONSTRAINT socialaccount_socialaccount_user_id_8146e70c_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES auth_user(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY storage_location
    ADD CONSTRAINT storage_location_artifact_id_21ac7d86_fk_artifact_id FOREIGN KEY (artifact_id) REFERENCES artifact(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY trusted_key
    ADD CONSTRAINT trusted_key_remote_id_a7ca8468_fk_remote_inventory_id FOREIGN KEY (remote_id) REFERENCES remote_inventory(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY validation_finding
    ADD CONSTRAINT validation_finding_run_id_23393334_fk_validation_run_id FOREIGN KEY (run_id) REFERENCES validation_run(id) DEFERRABLE INITIALLY DEFERRED;

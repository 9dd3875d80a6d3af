# One image for both roles and every process; the command chooses.
#
#   docker build -t storage-inventory .
#   docker run -e INVENTORY_ROLE=site -e DATABASE_URL=… -e REDIS_URL=… -p 8000:8000 storage-inventory
#   docker run -e INVENTORY_ROLE=site -e DATABASE_URL=… storage-inventory python manage.py migrate
#   docker run -it storage-inventory python manage.py demo --dir /data/demo
#
# Without arguments it serves HTTP. There is no HEALTHCHECK: the probes of the chart ask /livez and /readyz.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
    --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE manage.py ./
COPY datamodel datamodel
COPY harvest harvest
COPY site_service site_service
COPY global_inventory global_inventory
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
    --no-deps --no-build-isolation -e . \
    && python -m compileall -q datamodel harvest site_service global_inventory \
    && useradd --uid 10001 --create-home inventory \
    && install -d -o inventory -g inventory /data

# A number, so that Kubernetes can see that it is not root. Without an entry point any command runs as it is written.
USER 10001
ENV INVENTORY_EMBEDDED_DIR=/data/embedded
EXPOSE 8000
CMD ["python", "manage.py", "serve"]

# The server image: no torch. On a GPU machine build with --build-arg EXTRAS=[cuda].
FROM python:3.12-slim

ARG EXTRAS=""
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE bentofile.yaml ./
COPY fsr_serve fsr_serve
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".${EXTRAS}" \
    && useradd --create-home --uid 10001 fsr \
    && mkdir /state && chown fsr /state
COPY models models
USER fsr

# not BENTOML_CONTAINERIZED: with it BentoML does not start a worker again that died
ENV BENTOML_DO_NOT_TRACK=1
# the folder of models is root's
ENV FSR_MODEL=cifar10-fsr FSR_STATE=/state
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/readyz')"
CMD ["bentoml", "serve", "--host", "0.0.0.0", "--port", "3000"]

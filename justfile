# What a newcomer needs: `just` lists it. Without just, each recipe is one line to type.

# Lists these
default:
    @just --list

# Back up a directory, for a try: just try ~/Documents /mnt/usb/documents.git
try directory remote:
    cargo run --release -- run --watch {{directory}} --remote {{remote}}

# Every test (minutes); `just test lfs::` for those whose names contain that
test *filter:
    tests/run {{filter}}

# The long tier as well (hours)
test-long *filter:
    tests/run --long {{filter}}

# Everything that must hold before a change is taken
ci:
    .ci/run

# Format, and say what the linter would
tidy:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The chart's README from its values, and its rules from those in docs
chart:
    scripts/chart-readme
    cp docs/prometheus/backupbot.rules.yaml helm/rules/

# The image, on Debian slim (or: just image --target static)
image *arguments:
    docker build --tag backupbot --build-arg REVISION="$(git rev-parse --short=12 HEAD)" {{arguments}} .

# Both images built and run without a registry, as root
image-test:
    tests/container

# The archive of a release, in target/package
package:
    scripts/package

# What the program is made of, as CycloneDX
sbom:
    @scripts/sbom

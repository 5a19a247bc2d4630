{{/* What the specification of every pod has, whatever it does. Takes the root. */}}
{{- define "backupbot.everyPod" -}}
serviceAccountName: {{ include "backupbot.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- $values := .Values }}
{{- range $key := list "imagePullSecrets" "tolerations" "hostAliases" }}
{{- with index $values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The pod of one shard, or of each node. Takes a dict of root and shard. */}}
{{- define "backupbot.pod" -}}
{{- $root := .root -}}{{- $shard := .shard -}}{{- $values := .root.Values -}}
{{- $daemonSet := eq $values.mode "DaemonSet" -}}
metadata:
  labels:
    {{- $own := dict "app.kubernetes.io/component" "daemon" }}
    {{- if not $daemonSet }}{{- $_ := set $own "backupbot/shard" $shard.name }}{{- end }}
    {{- include "backupbot.labelsWith" (dict "root" $root "extra" (merge $own ($values.podLabels | default dict))) | nindent 4 }}
  annotations:
    # What only a restart changes; everything else of the configuration is obeyed while it runs.
    {{- $config := $values.config }}
    backupbot/restart-on: {{ pick $config "identity" "log" "shutdown_grace" "admin" | toJson | printf "%s %s %s" $shard.instance (include "backupbot.listen" $root) | sha256sum | trunc 16 | quote }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "backupbot.everyPod" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with merge (deepCopy $shard.nodeSelector) ($values.nodeSelector | default dict) }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $key := list "affinity" "topologySpreadConstraints" "initContainers" }}
  {{- with index $values $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: backupbot
      image: {{ include "backupbot.image" $root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy | quote }}
      args: ["run", "--config", {{ printf "/etc/backupbot/%s" (ternary $values.existingConfigMap.key "config.yaml" (ne $values.existingConfigMap.name "")) | quote }}]
      env:
        - name: BACKUPBOT_STATE_DIR
          value: {{ include "backupbot.stateDir" $root | quote }}
        - name: BACKUPBOT_METRICS_LISTEN
          value: {{ include "backupbot.listen" $root | quote }}
        - name: BACKUPBOT_INSTANCE
          {{- if $daemonSet }}
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
          {{- else }}
          value: {{ $shard.instance | quote }}
          {{- end }}
        {{- with $shard.adopt }}
        - name: BACKUPBOT_ADOPT
          value: {{ . | quote }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: metrics, containerPort: {{ int $values.metrics.port }}, protocol: TCP}
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        timeoutSeconds: 5
        {{- toYaml $values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        timeoutSeconds: 5
        {{- toYaml $values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        timeoutSeconds: 5
        {{- toYaml $values.probes.readiness | nindent 8 }}
      {{- with $values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/backupbot, readOnly: true}
        - {name: state, mountPath: /var/lib/backupbot}
        - {name: tmp, mountPath: /tmp}
        {{- range $shard.sources }}
        - name: source-{{ .name }}
          mountPath: {{ .mountPath | quote }}
          readOnly: true
          {{- if .hostPath }}
          # What is mounted on the node later is seen as well.
          mountPropagation: HostToContainer
          {{- end }}
        {{- end }}
        {{- with include "backupbot.secretMounts" $shard.secrets }}
        {{- . | trim | nindent 8 }}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ $values.existingConfigMap.name | default $shard.name | quote }}
    - name: state
      {{- if $daemonSet }}
      hostPath: {path: {{ $values.daemonSet.statePath | quote }}, type: Directory}
      {{- else }}
      persistentVolumeClaim:
        claimName: {{ $values.state.existingClaim | default (printf "%s-state" $shard.name) | quote }}
      {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- range $shard.sources }}
    {{- include "backupbot.sourceVolume" . | nindent 4 }}
    {{- end }}
    {{- with include "backupbot.secretVolumes" (dict "root" $root "secrets" $shard.secrets) }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

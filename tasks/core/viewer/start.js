{
    // Runs in the module of the viewer's bundle, so createViewer is in scope.
    const element = (id) => document.getElementById(id);
    const data = JSON.parse(element('settings').textContent);
    const { settings, rotation, scale, half_fov_tangents: [across, down] } = data;
    const pose = settings.cameras[0].initial;
    globalThis.spaceportLimits = data.limits;

    // The viewer's field of view is that of the window's longer side; the first view shows all of the start camera's.
    const aspect = innerWidth / innerHeight;
    let horizontal = Math.max(across, down * aspect);
    if (aspect < 1 && across > down * aspect) {
        // In an upright window this would be a strip between black ones, so the view is narrower: half-way, in ratio,
        // to a view that only shows what the start camera sees.
        horizontal = Math.sqrt(across * down * aspect);
        steepen(Math.atan(horizontal / aspect) - Math.atan(down));
    }
    const fov = (360 / Math.PI) * Math.atan(aspect > 1 ? horizontal : horizontal / aspect);
    pose.fov = Math.min(Math.max(fov, 10), 120); // the range that the viewer accepts

    // A view from above is turned down by so much that the window's upper edge is where the start camera's is: above
    // that edge the sky begins, which is black.
    function steepen(angle) {
        const [x, y, z] = pose.position.map((value, axis) => value - pose.target[axis]);
        const level = Math.hypot(x, z);
        const pitch = Math.atan2(y, level);
        const steeper = Math.min(pitch + angle, Math.max(pitch, 1.4));
        if (pitch > 0.3 && level > 0) {
            const distance = Math.hypot(level, y);
            const shorter = (distance * Math.cos(steeper)) / level;
            const offset = [x * shorter, distance * Math.sin(steeper), z * shorter];
            pose.position = offset.map((value, axis) => value + pose.target[axis]);
        }
    }

    // A blob and not a data URL: Firefox refuses data URLs above 32 MB.
    const held = () => {
        const text = atob(element('sog').textContent);
        element('sog').remove();
        const bytes = new Uint8Array(text.length);
        for (let i = 0; i < text.length; i++) {
            bytes[i] = text.charCodeAt(i);
        }
        return URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
    };
    const contentUrl = data.content ?? held();
    const contentFilename = data.content ? data.content.split('/').pop() : 'scene.sog';

    // The viewer unfolds its help over the picture until somebody has closed it; here it begins closed, one key away.
    try {
        localStorage.getItem('controlsPanelOpen') ?? localStorage.setItem('controlsPanelOpen', 'false');
    } catch {
        // Without storage the help unfolds.
    }

    const parameters = new URL(location.href).searchParams;
    if (parameters.has('noui')) {
        element('about').remove();
    }
    // A signed link opens one file; the report beside this page has a link of its own.
    if (parameters.has('X-Amz-Signature')) {
        document.querySelectorAll('#about a, #trouble a').forEach((link) => link.remove());
    }
    const complain = (error) => {
        const drawing = document.createElement('canvas').getContext('webgl2');
        element('what').textContent = drawing
            ? `The splat cannot be drawn: ${error?.message ?? error}`
            : 'The splat cannot be drawn: this browser has no WebGL 2. It may be switched off with the hardware ' +
              'acceleration, in the settings of the browser, or the browser is too old.';
        document.documentElement.classList.remove('scripts');
    };

    createViewer({
        container: document.body,
        settings,
        contentUrl,
        contentFilename,
        ui: !parameters.has('noui'),
        noanim: parameters.has('noanim') || matchMedia('(prefers-reduced-motion: reduce)').matches,
        renderer: parameters.has('webgpu') ? 'webgpu' : 'webgl'
    }).then((viewer) => {
        // The viewer's panels keep pointer and wheel to themselves.
        for (const panel of document.querySelectorAll('.sse-infoPanelContent, .sse-xrModalContent')) {
            for (const kind of ['pointerdown', 'wheel']) {
                panel.addEventListener(kind, (event) => event.stopPropagation());
            }
        }
        // The viewer's world is y-up and it turns every splat by its own default; the scene's up is put there instead.
        const orient = (entity) => {
            if (entity.name === 'gsplat') {
                entity.setLocalRotation(...rotation);
                entity.setLocalScale(scale, scale, scale);
            }
        };
        viewer.app.root.children.forEach(orient);
        viewer.app.root.on('childinsert', orient);
        viewer.app.assets.on('error', complain); // the viewer itself would go on showing its progress bar
        // Start still, at the first view, in orbit mode; the viewer would circle or fly on its own.
        const begin = () => {
            viewer.resetCamera();
            element('poster')?.classList.add('gone');
            window.spaceportViewer = viewer;
        };
        viewer.state.loaded ? begin() : viewer.events.once('loaded:changed', begin);
    }).catch(complain);
}
